"""Money held before a call and settled after it."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import orjson

from meshkit.errors import (
    BillingUnavailable,
    BudgetExceeded,
    DependencyUnavailable,
    MeshError,
    ReservationConflict,
    ResourceNotFound,
)
from meshkit.identity import Identity
from services.billing.coverage import Coverage, Quoting, covered
from services.billing.lease import Lease
from services.billing.margins import charged
from services.billing.metrics import LEDGER_ROWS, RESERVATIONS, count_cost
from services.billing.money import to_text
from services.billing.prices import PriceBook, Usage
from services.billing.tenants.tenant import tenant_unknown


@dataclass(frozen=True, slots=True)
class Ask:
    """A request about to be made."""

    request_id: str
    model: str
    deployments: tuple[str, ...]
    input_tokens: int
    max_output_tokens: int
    image_count: int = 0
    max_cost_micros: int | None = None
    """The most it may cost; None when nobody says."""

    @property
    def worst_case(self) -> Usage:
        """The most it can use."""
        return Usage(input_tokens=self.input_tokens, output_tokens=self.max_output_tokens, image_count=self.image_count)

    @property
    def fingerprint(self) -> str:
        """The same for the same body, another for any other."""
        body = (
            self.model, sorted(self.deployments), self.input_tokens, self.max_output_tokens, self.image_count,
            *(() if self.max_cost_micros is None else (self.max_cost_micros,)),
        )  # fmt: skip
        return hashlib.blake2b(orjson.dumps(body), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class Hold:
    """An amount to be held."""

    tenant_id: str
    key_id: str
    request_id: str
    model: str
    fingerprint: str
    amount_micros: int
    """In all, what is held already included."""
    priced_at: datetime
    extends: bool = False
    """Whether a hold that stands may grow."""


@dataclass(frozen=True, slots=True)
class Held:
    """What the database says about a hold that was asked for."""

    tenant_known: bool
    team_id: str
    """Of the key, when the hold was asked for."""
    refused: bool
    budget_id: str
    """The budget with the least left, of those that refuse."""
    left_micros: int
    limit_micros: int
    lapsed: bool
    """Refused although something of the tenant's has lapsed and can be let go."""
    billed: bool
    """The request has its ledger row already."""
    fingerprint: str | None
    """Of the hold that stands under this request id; None when none does."""
    amount_micros: int
    priced_at: datetime | None
    expire_time: datetime | None


@dataclass(frozen=True, slots=True)
class Reservation:
    """An amount held against a budget."""

    id: str
    amount_micros: int
    currency_code: str
    expire_time: datetime
    max_output_tokens: int = 0
    """Tokens of the answer that it covers where it may not cost more; 0 when all that were asked for."""
    deployments: tuple[str, ...] = ()
    """Whom it pays for where the others are too dear; empty when all."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """What was used, to be billed."""

    lease: Lease
    deployment: str
    provider: str
    usage: Usage
    cost_micros: int
    """What the tenant is charged."""
    margin_micros: int
    """So much of it is above what the provider takes."""
    finish_reason: str
    stop: str = ""
    """Why the mesh ended the answer; empty when it did not."""


@dataclass(frozen=True, slots=True)
class Settled:
    """What the ledger says about a settlement that was asked for."""

    cost_micros: int
    """Billed; less than what was used cost, if a hard budget could not bear it."""
    first: bool
    """False when the request had been billed before."""
    price_time: datetime | None = None
    """Since when the deployment's price is in force."""


class Reservations:
    """Holds, settles and lets go."""

    def __init__(
        self,
        book: PriceBook,
        *,
        currency_of: Callable[[str], Awaitable[str]],
        hold: Callable[[Hold], Awaitable[Held]],
        settle: Callable[[Settlement], Awaitable[Settled]],
        release: Callable[[Lease], Awaitable[None]],
    ) -> None:
        self._book = book
        self._currency_of = currency_of
        self._hold = hold
        self._settle = settle
        self._release = release

    async def create(self, caller: Identity, ask: Ask) -> Reservation:
        """Hold the worst case of `ask` against the budget of the caller's tenant until it is settled or lapses.

        Asking again with the same request id returns the first reservation. Cancelled midway, the hold may stand;
        it then lapses.

        Raises:
            BudgetExceeded: If a hard budget of the tenant, the key's team or the key has less than that left.
            MaxCostExceeded: If the request is allowed less than the least it may cost.
            ReservationConflict: If the request id stands for another request, or for one already billed.
            ResourceNotFound: If the tenant is unknown or a deployment has no price.
            BillingUnavailable: If the database is away.
        """
        with _counted():
            currency_code = await self._currency_of(caller.tenant_id)
            now = datetime.now(UTC)
            prices = Quoting(self._book, currency_code, now, self._book.margin(caller.tenant_id, now))
            coverage = covered(prices, ask.deployments, ask.worst_case, ask.max_cost_micros)
            hold = Hold(
                caller.tenant_id, caller.key_id, ask.request_id, ask.model, ask.fingerprint, coverage.amount_micros,
                prices.at,
            )  # fmt: skip
            lease = Lease(
                caller.tenant_id, caller.key_id, ask.request_id, ask.model, currency_code, prices.at,
                image_count=ask.image_count, max_cost_micros=ask.max_cost_micros,
                margin_points=prices.margin_points,
            )  # fmt: skip
            return _narrowed(await self._standing(hold, lease), coverage, ask.deployments, ask.max_output_tokens)

    async def extend(
        self, caller: Identity, lease: Lease, deployments: tuple[str, ...], worst_case: Usage
    ) -> Reservation:
        """Hold `worst_case` in all, at the prices of the reservation; it never shrinks. A repeat does nothing.

        Where the request may not cost so much, as much of it as it may.

        Raises:
            BudgetExceeded: If a hard budget has less left; what was held stays held.
            ReservationConflict: If the request is billed already.
            BillingUnavailable: If the database is away.
        """
        _check_owner(caller, lease)
        with _counted():
            worst_case = replace(worst_case, image_count=lease.image_count)
            prices = Quoting(self._book, lease.currency_code, lease.priced_at, lease.margin_points)
            coverage = covered(prices, deployments, worst_case, lease.max_cost_micros)
            hold = Hold(
                lease.tenant_id, lease.key_id, lease.request_id, lease.model, "", coverage.amount_micros,
                lease.priced_at, extends=True,
            )  # fmt: skip
            return _narrowed(await self._standing(hold, lease), coverage, deployments, worst_case.output_tokens)

    async def commit(
        self,
        caller: Identity,
        lease: Lease,
        *,
        deployment: str,
        provider: str,
        usage: Usage,
        finish_reason: str,
        stop: str = "",
    ) -> Settled:
        """Bill what was used and let the rest go. A repeat returns the first settlement.

        The ledger row is on disk when this returns. A reservation that has lapsed or was let go is billed too. Nothing
        beyond what the request may cost is billed, whatever its provider made of it.
        """
        _check_owner(caller, lease)
        usage = replace(usage, image_count=lease.image_count)
        taken = self._book.cost(deployment, usage, lease.currency_code, lease.priced_at)
        cost = charged(taken, lease.margin_points)
        margin = cost - taken
        settled = await self._settle(Settlement(lease, deployment, provider, usage, cost, margin, finish_reason, stop))
        if settled.first:
            count_cost(provider, lease.model, lease.currency_code, settled.cost_micros)
            LEDGER_ROWS.labels("miss").inc()
        return replace(settled, price_time=self._book.price(deployment, lease.priced_at).effective_time)

    async def cancel(self, caller: Identity, lease: Lease) -> None:
        """Let a reservation go; one that is gone already is no error."""
        _check_owner(caller, lease)
        await self._release(lease)

    async def _standing(self, hold: Hold, lease: Lease) -> Reservation:
        held = await self._hold(hold)
        priced_at, expire_time = _standing(held, hold, lease.currency_code)
        RESERVATIONS.labels("extended" if hold.extends else "held").inc()
        lease = replace(lease, priced_at=priced_at, team_id=held.team_id)
        if priced_at != hold.priced_at:
            # A repeat: what it was first held with stays.
            lease = replace(lease, margin_points=self._book.margin(lease.tenant_id, priced_at))
        return Reservation(lease.to_id(), held.amount_micros, lease.currency_code, expire_time)


@contextmanager
def _counted() -> Iterator[None]:
    """Count whatever refuses a reservation; a database that is away is billing being away."""
    try:
        yield
    except DependencyUnavailable as error:
        RESERVATIONS.labels("unavailable").inc()
        message = "Spending cannot be reserved now: retry in a moment."
        raise BillingUnavailable(message, retry_after_seconds=1) from error
    except MeshError as error:
        RESERVATIONS.labels(error.reason.lower()).inc()
        raise


def _standing(held: Held, hold: Hold, currency_code: str) -> tuple[datetime, datetime]:
    """When the hold was priced and when it lapses; raises when none stands for this very request."""
    if not held.tenant_known:
        raise tenant_unknown(hold.tenant_id)
    if held.billed:
        raise _conflict(hold.request_id, "is billed already: use a new id for a new request")
    if held.refused or held.priced_at is None or held.expire_time is None:
        raise _exceeded(held, hold, currency_code)
    if held.fingerprint != hold.fingerprint and not hold.extends:
        raise _conflict(hold.request_id, "holds money for another request: use a new id for each")
    return held.priced_at, held.expire_time


def _narrowed(
    reservation: Reservation, coverage: Coverage, deployments: tuple[str, ...], max_output_tokens: int
) -> Reservation:
    """Say what it does not cover of what was asked for, if anything."""
    tokens = coverage.worst_case.output_tokens
    return replace(
        reservation,
        max_output_tokens=tokens if tokens < max_output_tokens else 0,
        deployments=coverage.deployments if coverage.deployments != deployments else (),
    )


def _exceeded(held: Held, hold: Hold, currency_code: str) -> BudgetExceeded:
    budget = f"tenants/{hold.tenant_id}/budgets/{held.budget_id}"
    return BudgetExceeded(
        f"The budget {held.budget_id!r} of tenant {hold.tenant_id!r} is spent: of {to_text(held.limit_micros)} "
        f"{currency_code} {to_text(max(0, held.left_micros))} is left and this request may cost "
        f"{to_text(hold.amount_micros)}. Raise the budget, ask for fewer tokens or wait for its next period.",
        budget=budget,
    )


def _conflict(request_id: str, what: str) -> ReservationConflict:
    return ReservationConflict(f"The request id {request_id!r} {what}.", reservation=request_id)


def _check_owner(caller: Identity, lease: Lease) -> None:
    if caller.tenant_id != lease.tenant_id:
        raise ResourceNotFound("There is no such reservation.", resource="reservations")
