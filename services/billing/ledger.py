"""What was used and what it cost: rows of the ledger and their sums."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from meshkit.errors import FieldInvalid, ResourceNotFound
from meshkit.log import get_logger
from services.billing.margins import charged
from services.billing.metrics import LEDGER_ROWS, SAVED
from services.billing.money import MICROS
from services.billing.prices import PriceBook, Usage

log = get_logger()


@dataclass(frozen=True, slots=True)
class CacheHit:
    """An answer that cost nothing."""

    request_id: str
    tenant_id: str
    key_id: str
    model: str
    deployment: str
    """Deployment that made the cached answer."""
    provider: str
    cache_status: str
    usage: Usage
    """What the cached answer had used."""
    finish_reason: str
    create_time: datetime | None
    """When it was answered; None means when it is written."""


@dataclass(frozen=True, slots=True)
class PricedHit:
    """A cache hit, and what it saved."""

    hit: CacheHit
    saved_micros: int
    currency_code: str


@dataclass(frozen=True, slots=True)
class Recorded:
    """Cache hits written down, of one kind."""

    cache_status: str
    model: str
    currency_code: str
    request_count: int
    saved_micros: int


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One ledger row."""

    id: int
    request_id: str
    tenant_id: str
    key_id: str
    model: str
    deployment: str
    provider: str
    cache_status: str
    usage: Usage
    cost_micros: int
    saved_micros: int
    currency_code: str
    finish_reason: str
    create_time: datetime
    team_id: str
    tags: tuple[str, ...]
    overrun_micros: int
    """Used beyond every hard budget, and not billed."""
    priced_at: datetime
    """Time whose prices it was billed at."""
    margin_micros: int = 0
    """So much of cost and overrun together is above what the provider takes."""
    margin_points: int = 0
    """The tenant's margin, in basis points."""
    correction: bool = False
    """Whether this is what must be added to an estimate."""
    stop: str = ""
    """Why the mesh ended the answer; empty when it did not."""
    most_micros: int | None = None
    """The most that the request may cost; None when nobody says."""

    @property
    def provider_micros(self) -> int:
        """What the provider takes."""
        return self.cost_micros + self.overrun_micros - self.margin_micros


@dataclass(frozen=True, slots=True)
class LedgerFilter:
    """Which rows; empty means any."""

    start: datetime | None = None
    end: datetime | None = None
    team_id: str = ""
    key_id: str = ""
    model: str = ""
    deployment: str = ""


@dataclass(frozen=True, slots=True)
class UsageTotal:
    """A sum of ledger rows."""

    name: str
    request_count: int
    cached_count: int
    token_count: int
    cost_micros: int
    saved_micros: int


@dataclass(frozen=True, slots=True)
class UsageSummary:
    """What a tenant spent and saved."""

    total: UsageTotal
    by_provider: list[UsageTotal]
    by_model: list[UsageTotal]


class CacheHits:
    """Writes down answers that cost nothing, with what they would have cost."""

    def __init__(
        self,
        book: PriceBook,
        *,
        currency_of: Callable[[str], Awaitable[str]],
        record: Callable[[Sequence[PricedHit]], Awaitable[Sequence[Recorded]]],
    ) -> None:
        self._book = book
        self._currency_of = currency_of
        self._record = record

    async def record(self, hits: Sequence[CacheHit]) -> None:
        """Add a ledger row for each hit, or none at all; hits with a known request id are skipped.

        Raises:
            FieldInvalid: If a tenant is unknown.
            DependencyUnavailable: If the database is away; repeating is safe.
        """
        priced = [await self._priced(index, hit) for index, hit in enumerate(hits)]
        for kind in await self._record(priced):
            LEDGER_ROWS.labels(kind.cache_status).inc(kind.request_count)
            SAVED.labels(kind.model, kind.currency_code).inc(kind.saved_micros / MICROS)

    async def _priced(self, index: int, hit: CacheHit) -> PricedHit:
        try:
            currency_code = await self._currency_of(hit.tenant_id)
        except ResourceNotFound:
            raise FieldInvalid(f"records[{index}].tenant_id", f"there is no tenant {hit.tenant_id!r}") from None
        return PricedHit(hit, self._saved(hit, currency_code), currency_code)

    def _saved(self, hit: CacheHit, currency_code: str) -> int:
        at = hit.create_time or datetime.now(UTC)
        try:
            taken = self._book.cost(hit.deployment, hit.usage, currency_code, at)
        except ResourceNotFound:
            # Better a row that claims no saving than no row.
            log.warning("saving_unknown", deployment=hit.deployment)
            return 0
        return charged(taken, self._book.margin(hit.tenant_id, at))
