"""Late usage: an estimate that turns out to be something else is corrected by a row of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from meshkit.errors import ReservationConflict, ResourceNotFound
from services.billing.ledger import LedgerRow
from services.billing.margins import charged
from services.billing.prices import PriceBook, Usage

PART = "correction"
"""What a correcting row's request id ends with, behind a colon."""
_TOKENS = ("input_tokens", "cached_input_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")


@dataclass(frozen=True, slots=True)
class Correction:
    """A row to be added to an estimated one: both together say what was used."""

    estimate: LedgerRow
    usage: Usage
    """Tokens to be added to the estimated ones; negative where fewer were used."""
    used_micros: int
    """What was really used costs this."""
    margin_micros: int = 0
    """To be added to the margin in the estimate."""

    @property
    def request_id(self) -> str:
        """Of the correcting row: a request is corrected once."""
        return f"{self.estimate.request_id}:{PART}"

    @property
    def wanted_micros(self) -> int:
        """What was used beyond the estimate, as far as the request may cost so much."""
        beyond = self.used_micros - self.estimate.cost_micros - self.estimate.overrun_micros
        most = self.estimate.most_micros
        return max(0, beyond if most is None else min(beyond, most - self.estimate.cost_micros))

    def charge(self, granted_micros: int) -> tuple[int, int]:
        """What to add to cost and to overrun, if hard budgets bear so much of `wanted_micros`.

        What comes back is taken from the overrun first: it was not billed. An overrun once borne is not billed later.
        """
        cost = min(self.estimate.cost_micros, self.used_micros) + granted_micros
        return cost - self.estimate.cost_micros, self.used_micros - cost - self.estimate.overrun_micros


class Corrections:
    """Corrects estimates."""

    def __init__(
        self,
        book: PriceBook,
        *,
        find: Callable[[str, str], Awaitable[LedgerRow | None]],
        add: Callable[[Correction], Awaitable[LedgerRow]],
    ) -> None:
        self._book = book
        self._find = find
        self._add = add

    async def correct(self, tenant_id: str, request_id: str, usage: Usage) -> LedgerRow:
        """Add the row that makes an estimate what was used, at the estimate's prices. A repeat returns the first.

        Raises:
            ResourceNotFound: If the tenant has no such row.
            ReservationConflict: If it is no estimate.
        """
        estimate = await self._find(tenant_id, request_id)
        if estimate is None:
            raise ResourceNotFound(f"There is no ledger row {request_id!r}.", resource=f"usage/{request_id}")
        if not estimate.usage.estimated:
            raise ReservationConflict(f"The ledger row {request_id!r} is no estimate.", reservation=request_id)
        usage = replace(usage, image_count=estimate.usage.image_count)
        taken = self._book.cost(estimate.deployment, usage, estimate.currency_code, estimate.priced_at)
        cost = charged(taken, estimate.margin_points)
        margin = cost - taken - estimate.margin_micros
        return await self._add(Correction(estimate, _added(estimate.usage, usage), cost, margin))


def _added(estimated: Usage, used: Usage) -> Usage:
    return Usage(**{name: getattr(used, name) - getattr(estimated, name) for name in _TOKENS})
