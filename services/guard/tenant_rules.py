"""The rules of tenants' own: kept elsewhere, held here compiled for those who asked last.

Gateways are told of every change and name the version with every text; a version that is not held is fetched before
the text is judged. So a change is in force as soon as gateways know it, and a tenant without rules costs nothing.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from weakref import WeakValueDictionary

from meshkit.errors import GuardUnavailable
from meshkit.log import get_logger
from services.guard.rulebook import Rulebook, read_rules, rulebook
from services.guard.trials import Words

log = get_logger()

VERSION_BYTES = 8


@dataclass(frozen=True, slots=True)
class KeptRules:
    """A tenant's rules as they are kept."""

    rules_json: str = ""
    """A JSON array in the words of packs; empty when there are none."""
    version: str = ""
    """Changes whenever any rule does, and never comes again; empty when there are none."""

    @classmethod
    def of(cls, rules: Sequence[Words], before: KeptRules | None = None) -> KeptRules:
        """The form in which rules are kept; that of the rules `before` where they are the same.

        Rules that come back after others get a new version: to a guard that was asked for the old one meanwhile, it
        stands for those others.
        """
        if not rules:
            return cls()
        written = json.dumps(rules, ensure_ascii=False)
        if before is not None and before.rules_json == written:
            return before
        return cls(written, secrets.token_hex(VERSION_BYTES))


Fetch = Callable[[str], Awaitable[KeptRules]]
"""A tenant's rules as they are now."""


@dataclass(frozen=True, slots=True)
class _Held:
    book: Rulebook
    older: frozenset[str] = frozenset()
    """Versions that somebody still named after this one was there."""


class TenantRules:
    """Compiled rules by tenant, at most so many tenants'."""

    def __init__(self, fetch: Fetch, most_tenants: int) -> None:
        self._fetch = fetch
        self._most_tenants = most_tenants
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def of(self, tenant_id: str, version: str) -> Rulebook | None:
        """A tenant's rules of this version or a newer one; None when it has none.

        Raises:
            GuardUnavailable: If they cannot be used; whatever `fetch` raises passes.
        """
        if not version:
            return None
        if (held := self._current(tenant_id, version)) is None:
            turn = self._turns.setdefault(tenant_id, asyncio.Lock())
            async with turn:
                held = self._current(tenant_id, version) or await self._fetched(tenant_id, version)
        return held.book if held.book.version else None

    async def newest(self, tenant_id: str) -> Rulebook | None:
        """A tenant's rules as they are now; raises as `of`."""
        return await self.of(tenant_id, (await self._fetch(tenant_id)).version)

    def _current(self, tenant_id: str, version: str) -> _Held | None:
        held = self._held.get(tenant_id)
        if held is None or (held.book.version != version and version not in held.older):
            return None
        self._held.move_to_end(tenant_id)
        return held

    async def _fetched(self, tenant_id: str, version: str) -> _Held:
        kept, before = await self._fetch(tenant_id), self._held.get(tenant_id)
        if before is not None and before.book.version == kept.version:
            held = _Held(before.book, before.older | {version})
        else:
            book = await asyncio.to_thread(_compiled, tenant_id, kept)
            held = _Held(book, frozenset({version} - {book.version}))
        self._held[tenant_id] = held
        self._held.move_to_end(tenant_id)
        while len(self._held) > self._most_tenants:
            self._held.popitem(last=False)
        return held


def _compiled(tenant_id: str, kept: KeptRules) -> Rulebook:
    try:
        return rulebook(read_rules(kept.rules_json), kept.version) if kept.version else Rulebook("", {}, ())
    except ValueError as error:
        log.error("tenant_rules_unusable", tenant_id=tenant_id, error=str(error))
        raise GuardUnavailable("The tenant's own rules cannot be used: put them anew.") from error
