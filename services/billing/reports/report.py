"""A report: sums of the ledger, a forecast, and what the same tokens would have cost elsewhere."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from meshkit.errors import ResourceNotFound
from services.billing.margins import charged
from services.billing.prices import PriceBook, Usage

ANOMALY_FACTOR = 1.5
LEVELS = ("provider", "model", "deployment", "team", "key", "tag")


@dataclass(frozen=True, slots=True)
class Line:
    """Sums of ledger rows that share a name at one level."""

    level: str = ""
    name: str = ""
    cached: bool = False
    exact: bool = False
    request_count: int = 0
    input_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cost_micros: int = 0
    saved_micros: int = 0
    overrun_micros: int = 0
    image_count: int = 0
    stopped_micros: int = 0
    margin_micros: int = 0

    @property
    def time(self) -> datetime:
        """When the day or hour began that the line is for."""
        return datetime.fromisoformat(self.name).replace(tzinfo=UTC)

    @property
    def usage(self) -> Usage:
        """The tokens."""
        return Usage(
            self.input_tokens, self.cached_input_tokens, self.cache_write_tokens, self.output_tokens,
            self.reasoning_tokens, self.image_count,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Total:
    """A line as it is shown: tokens are those bought."""

    name: str
    request_count: int
    cached_count: int
    input_tokens: int
    output_tokens: int
    cost_micros: int
    saved_micros: int
    overrun_micros: int
    provider_micros: int
    """What providers take: less than the cost by the tenant's margin, more by what is not billed."""

    @property
    def earned_micros(self) -> int:
        """What is left of the cost when providers are paid."""
        return self.cost_micros - self.provider_micros


@dataclass(frozen=True, slots=True)
class Hour:
    """What an hour cost."""

    start: datetime
    cost_micros: int
    request_count: int
    anomalous: bool


@dataclass(frozen=True, slots=True)
class Savings:
    """The same tokens at the price of the baseline."""

    baseline_deployment: str = ""
    baseline_micros: int = 0
    total_micros: int = 0
    routing_micros: int = 0
    cache_micros: int = 0
    embedding_micros: int = 0
    early_stop_micros: int = 0
    """What was held for the rest of answers that the guard stopped: the most it can have saved, in no other sum."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a tenant spent and saved from `start` up to `end`."""

    tenant_id: str
    currency_code: str
    start: datetime
    end: datetime
    total: Total
    by: dict[str, list[Total]]
    """Lines of each of LEVELS, dearest first."""
    hours: list[Hour]
    days: list[Total]
    forecast_micros: int
    savings: Savings


class Reports:
    """Makes reports."""

    def __init__(
        self,
        book: PriceBook,
        *,
        currency_of: Callable[[str], Awaitable[str]],
        lines: Callable[[str, datetime, datetime], Awaitable[Sequence[Line]]],
        baseline: str,
        embedder: str,
    ) -> None:
        self._book = book
        self._currency_of = currency_of
        self._lines = lines
        self._baseline = baseline
        self._embedder = embedder

    async def report(self, tenant_id: str, start: datetime, end: datetime, baseline: str = "") -> Report:
        """Sum up the whole hours from `start` up to `end`, against a baseline or the usual one.

        Raises:
            ResourceNotFound: If there is no such tenant, or the baseline asked for has no price.
        """
        currency_code = await self._currency_of(tenant_id)
        if baseline:
            self._book.price(baseline, datetime.now(UTC))
        lines = await self._lines(tenant_id, start, end)
        days = [line for line in lines if line.level == "day"]
        total = _total("", days)
        return Report(
            tenant_id=tenant_id,
            currency_code=currency_code,
            start=start,
            end=end,
            total=total,
            by={level: _totals(line for line in lines if line.level == level) for level in LEVELS},
            hours=hours_of([line for line in lines if line.level == "hour"], start),
            days=sorted(_totals(days), key=lambda day: day.name),
            forecast_micros=forecast(total.cost_micros, start, end, datetime.now(UTC)),
            savings=self._savings(tenant_id, days, currency_code, baseline or self._baseline),
        )

    def _savings(self, tenant_id: str, days: Sequence[Line], currency_code: str, baseline: str) -> Savings:
        def priced(each: Iterable[Line], deployment: str) -> int | None:
            return self._priced(tenant_id, each, deployment, currency_code)

        bought = [line for line in days if not line.cached]
        found = [line for line in days if line.cached]
        stopped = sum(line.stopped_micros for line in days)
        # An exact hit is found before anything is embedded.
        embedded = priced((_prompts(line) for line in days if not line.exact), self._embedder)
        at_baseline, found_at_baseline = priced(bought, baseline), priced(found, baseline)
        if at_baseline is None or found_at_baseline is None:
            return Savings(embedding_micros=embedded or 0, early_stop_micros=stopped)
        routing = at_baseline - sum(line.cost_micros for line in bought)
        cache = found_at_baseline - (embedded or 0)
        return Savings(
            baseline, at_baseline + found_at_baseline, routing + cache, routing, cache, embedded or 0, stopped
        )  # fmt: skip

    def _priced(self, tenant_id: str, days: Iterable[Line], deployment: str, currency_code: str) -> int | None:
        """What a tenant pays for the tokens at a deployment, at the prices and margin that their own days ended with.

        None when the deployment had no price.
        """
        now = datetime.now(UTC)

        def day_cost(line: Line) -> int:
            at = min(line.time + timedelta(days=1), now)
            taken = self._book.total(deployment, line.usage, currency_code, at, line.request_count)
            return charged(taken, self._book.margin(tenant_id, at))

        try:
            return sum(map(day_cost, days))
        except ResourceNotFound:
            return None


def forecast(cost_micros: int, start: datetime, end: datetime, now: datetime) -> int:
    """The cost of the whole period if it goes on as so far."""
    if not start < now < end:
        return cost_micros
    return round(cost_micros * ((end - start) / (now - start)))


def hours_of(lines: Iterable[Line], start: datetime) -> list[Hour]:
    """The hours from `start` on; one that cost far more than the same hour of the day before is an anomaly."""
    by_start = {line.time: line for line in lines}

    def anomalous(hour: datetime) -> bool:
        yesterday = by_start.get(hour - timedelta(days=1))
        return bool(yesterday and by_start[hour].cost_micros > ANOMALY_FACTOR * yesterday.cost_micros > 0)

    shown = [hour for hour in sorted(by_start) if hour >= start]
    return [Hour(hour, by_start[hour].cost_micros, by_start[hour].request_count, anomalous(hour)) for hour in shown]


def _totals(lines: Iterable[Line]) -> list[Total]:
    by_name: dict[str, list[Line]] = {}
    for line in lines:
        by_name.setdefault(line.name, []).append(line)
    return sorted((_total(name, each) for name, each in by_name.items()), key=lambda total: -total.cost_micros)


def _total(name: str, lines: Sequence[Line]) -> Total:
    bought = [line for line in lines if not line.cached]
    return Total(
        name=name,
        request_count=sum(line.request_count for line in lines),
        cached_count=sum(line.request_count for line in lines if line.cached),
        input_tokens=sum(line.input_tokens + line.cached_input_tokens + line.cache_write_tokens for line in bought),
        output_tokens=sum(line.output_tokens + line.reasoning_tokens for line in bought),
        cost_micros=sum(line.cost_micros for line in lines),
        saved_micros=sum(line.saved_micros for line in lines),
        overrun_micros=sum(line.overrun_micros for line in lines),
        provider_micros=sum(line.cost_micros + line.overrun_micros - line.margin_micros for line in lines),
    )


def _prompts(line: Line) -> Line:
    """The tokens of prompts alone."""
    return replace(line, output_tokens=0, reasoning_tokens=0)
