"""An invoice: what a tenant owes for a period."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from services.billing.reports.report import Line
from services.billing.tenants.tenant import Tenant, tenant_unknown

HUNDREDTH_MICROS = 10_000
WRITING_TIME = timedelta(minutes=1)
"""Rows are dated when their transaction begins: after so long the last of a period are written."""


@dataclass(frozen=True, slots=True)
class InvoiceLine:
    """What was bought of one deployment."""

    deployment: str
    request_count: int
    input_tokens: int
    output_tokens: int
    cost_micros: int


@dataclass(frozen=True, slots=True)
class Invoice:
    """What was billed from `start` up to `end`."""

    number: str
    tenant_id: str
    display_name: str
    issuer: str
    currency_code: str
    start: datetime
    end: datetime
    final: bool
    """Whether the period is over: it does not change any more, since corrections are billed when they are made."""
    lines: tuple[InvoiceLine, ...]
    cached_count: int
    """Requests answered from the cache, for nothing."""

    @property
    def total_micros(self) -> int:
        """What was billed, to the micro-unit."""
        return sum(line.cost_micros for line in self.lines)

    @property
    def payable_micros(self) -> int:
        """The total rounded down to hundredths."""
        return self.total_micros // HUNDREDTH_MICROS * HUNDREDTH_MICROS


class Invoices:
    """Draws invoices up."""

    def __init__(
        self,
        *,
        tenant: Callable[[str], Awaitable[Tenant | None]],
        currency_of: Callable[[str], Awaitable[str]],
        lines: Callable[[str, datetime, datetime], Awaitable[Sequence[Line]]],
        issuer: str,
    ) -> None:
        self._tenant = tenant
        self._currency_of = currency_of
        self._lines = lines
        self._issuer = issuer

    async def invoice(self, tenant_id: str, start: datetime, end: datetime) -> Invoice:
        """The invoice of the whole hours from `start` up to `end`; a draft until they are over.

        Raises:
            ResourceNotFound: If there is no such tenant.
        """
        tenant = await self._tenant(tenant_id)
        if tenant is None:
            raise tenant_unknown(tenant_id)
        found = [line for line in await self._lines(tenant_id, start, end) if line.level == "deployment"]
        return Invoice(
            number=f"{tenant_id}-{start:%Y%m%d%H}-{end:%Y%m%d%H}",
            tenant_id=tenant_id,
            display_name=tenant.display_name,
            issuer=self._issuer,
            currency_code=await self._currency_of(tenant_id),
            start=start,
            end=end,
            final=end + WRITING_TIME <= datetime.now(UTC),
            lines=tuple(sorted((_line(line) for line in found if not line.cached), key=_dearest_first)),
            cached_count=sum(line.request_count for line in found if line.cached),
        )


def _dearest_first(line: InvoiceLine) -> int:
    return -line.cost_micros


def _line(line: Line) -> InvoiceLine:
    return InvoiceLine(
        deployment=line.name,
        request_count=line.request_count,
        input_tokens=line.input_tokens + line.cached_input_tokens + line.cache_write_tokens,
        output_tokens=line.output_tokens + line.reasoning_tokens,
        cost_micros=line.cost_micros,
    )
