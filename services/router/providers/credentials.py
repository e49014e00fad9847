"""What we are known by at a provider: a secret that stays, or tokens that are renewed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from services.router.providers.provider import FailureKind, ProviderFailure

RENEWED_BEFORE_SECONDS = 60.0
"""How long before its end a token is replaced."""


@dataclass(frozen=True, slots=True)
class Token:
    """A secret with an end."""

    value: str
    expires_at: float
    """Unix time in seconds."""


@dataclass(frozen=True, slots=True)
class FixedCredential:
    """A secret that stays: the whole Authorization header, or empty to send none."""

    header: str

    async def authorization(self) -> str:
        """The Authorization header."""
        return self.header

    async def renew(self, refused: str) -> bool:
        """Whether there may be another one than `refused`: never."""
        del refused
        return False


class RenewedCredential:
    """Tokens from an issuer, each kept until shortly before its end; one request to the issuer serves all who wait."""

    def __init__(self, issue: Callable[[], Awaitable[Token]], clock: Callable[[], float] = time.time) -> None:
        self._issue = issue
        self._clock = clock
        self._issuing = asyncio.Lock()
        self._token: Token | None = None
        self._rounds = 0
        self._failure: ProviderFailure | None = None

    async def authorization(self) -> str:
        """The Authorization header.

        Raises:
            ProviderFailure: If the issuer gives no token and the last one has ended.
        """
        token = self._token
        if token is None or self._ends_within(token, RENEWED_BEFORE_SECONDS):
            token = await self._renewed(token)
        return f"Bearer {token.value}"

    async def renew(self, refused: str) -> bool:
        """Forget the token that was refused, unless another has replaced it: then that one may be tried."""
        if self._token is not None and refused == f"Bearer {self._token.value}":
            self._token = None
        return True

    async def _renewed(self, ending: Token | None) -> Token:
        """A fresh token; the one that is about to end while there is no other."""
        usable = ending if ending and not self._ends_within(ending, 0) else None
        if usable and self._issuing.locked():
            return usable
        round_seen = self._rounds
        async with self._issuing:
            # Whoever waited shares what came of it, a failure too: an issuer in trouble is asked once, not by all.
            if self._rounds == round_seen or not (self._token or self._failure):
                await self._ask()
            failure, token = self._failure, self._token
        if failure is None and token is not None:
            return token
        if usable is not None:
            return usable
        raise failure or ProviderFailure(FailureKind.CREDENTIAL, "the issuer's token was refused at once")

    async def _ask(self) -> None:
        try:
            self._token, self._failure = await self._issue(), None
        except ProviderFailure as failure:
            self._failure = failure
        self._rounds += 1

    def _ends_within(self, token: Token, seconds: float) -> bool:
        return token.expires_at - self._clock() <= seconds


Credential: TypeAlias = FixedCredential | RenewedCredential
