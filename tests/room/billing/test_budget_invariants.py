"""Whatever callers do in whatever order, and however often the database crashes, the books balance.

After every step: no hard budget has borne a micro-unit beyond its limit, counters are what ledger and reservations
say, and every settled request has exactly one ledger row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from itertools import count
from typing import Any

import psycopg
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from meshkit.errors import BudgetExceeded
from services.billing.budgets.budget import BudgetChange, NewBudget
from services.billing.corrections import Correction
from services.billing.database.budgets import BudgetStore, BudgetUpkeep
from services.billing.database.corrections import CorrectionStore
from services.billing.database.engine import Database
from services.billing.database.keys import KeyStore
from services.billing.database.reservations import ReservationStore
from services.billing.database.settlements import SettlementStore
from services.billing.database.tenants import TenantStore
from services.billing.database.wire import Wire
from services.billing.lease import Lease
from services.billing.migrations.upgrade import upgrade
from services.billing.prices import Usage
from services.billing.reservations import Held, Hold, Settlement
from services.billing.tenants.tenant import Key, NewTenant
from tests.support.fix_postgres import Postgres

TEAMS = {"key-a": "research", "key-b": "research", "key-c": "sales", "key-d": "sales"}
BEFORE = {"key-d": ("key-a",)}
"""Keys that one was rotated from."""
AMOUNTS = st.integers(0, 40)
KEYS = st.sampled_from(sorted(TEAMS))
SCOPES = st.sampled_from([("", ""), ("research", ""), ("sales", ""), ("", "key-a"), ("research", "key-b")])
NOW = datetime(2026, 1, 1, tzinfo=UTC)

UNBALANCED = """
SELECT b.id FROM budgets b WHERE tenant_id = 'acme' AND (
    (NOT soft AND spent_micros + reserved_micros > limit_micros)
    OR spent_micros <> (
        SELECT coalesce(sum(cost_micros), 0) FROM ledger l
            LEFT JOIN keys k ON k.id = l.key_id AND k.tenant_id = l.tenant_id
            WHERE l.tenant_id = b.tenant_id AND b.team_id IN ('', l.team_id)
            AND b.key_id = ANY(ARRAY['', l.key_id] || k.budget_key_ids) AND l.create_time >= period_start)
    OR reserved_micros <> (
        SELECT coalesce(sum(amount_micros), 0) FROM reservations r
            LEFT JOIN keys k ON k.id = r.key_id AND k.tenant_id = r.tenant_id
            WHERE r.tenant_id = b.tenant_id AND b.team_id IN ('', r.team_id)
            AND b.key_id = ANY(ARRAY['', r.key_id] || k.budget_key_ids)))
"""


class Books:
    """The stores on a database of their own, without the room around them."""

    def __init__(self, url: str) -> None:
        self.database = Database(url, seconds=20, connections=2)
        self.database.open()
        self.wires = [Wire(self.database, seconds=20) for _ in range(4)]
        hold, release, settle, upkeep = self.wires
        self.reservations = ReservationStore(hold, release, upkeep, lease_seconds=900)
        self.settlements = SettlementStore(settle)
        self.budgets = BudgetStore(self.database)
        self.corrections = CorrectionStore(self.database)
        self.upkeep = BudgetUpkeep(upkeep)

    async def open(self) -> None:
        """A tenant of four keys in two teams, one the successor of another."""
        await upgrade(self.database.engine)
        await TenantStore(self.database).create(NewTenant("acme", "Acme", 100, "RUB"))
        for key_id, team_id in TEAMS.items():
            before = BEFORE.get(key_id, ())
            key = Key(key_id, "acme", "", (), NOW, NOW, None, team_id, budget_key_ids=before)
            await KeyStore(self.database).create(key)

    async def close(self) -> None:
        """Close every connection."""
        for wire in self.wires:
            await wire.close()
        await self.database.close()


class Callers(RuleBasedStateMachine):
    """Callers of one tenant; `server` is set before it runs."""

    server: Postgres
    requests = Bundle("requests")
    budgets = Bundle("budgets")

    def __init__(self) -> None:
        super().__init__()
        self.numbers = count()
        self.runner = asyncio.Runner()
        self.name = self.server.create_database()
        self.books = Books(self.server.url(self.name))
        self.settled: dict[str, int] = {}

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Do it on the machine's own loop."""
        return self.runner.run(work)

    @initialize()
    def open(self) -> None:
        self.run(self.books.open())

    def teardown(self) -> None:
        self.run(self.books.close())
        self.runner.close()
        self.server.drop_database(self.name)

    def ask(self, key_id: str, request_id: str, amount: int, *, extends: bool = False) -> Held:
        hold = Hold("acme", key_id, request_id, "m", "f", amount, NOW, extends)
        [held] = self.run(self.books.reservations.hold([hold]))
        return held

    @rule(target=requests, key_id=KEYS, amount=AMOUNTS)
    def reserve(self, key_id: str, amount: int) -> Lease:
        request_id = f"r{next(self.numbers)}"
        held = self.ask(key_id, request_id, amount)
        return Lease("acme", key_id, request_id, "m", "RUB", NOW, held.team_id)

    @rule(lease=requests, amount=AMOUNTS)
    def extend(self, lease: Lease, amount: int) -> None:
        self.ask(lease.key_id, lease.request_id, amount, extends=True)

    @rule(leases=st.lists(requests, min_size=1, max_size=4), cost=st.integers(0, 60))
    def settle_together(self, leases: list[Lease], cost: int) -> None:
        wanted = [Settlement(lease, "d", "p", Usage(), cost, cost // 5, "stop") for lease in leases]
        answers = self.run(self.books.settlements.settle(wanted))
        for lease, answer in zip(leases, answers, strict=True):
            assert answer.cost_micros <= cost or lease.request_id in self.settled
            assert self.settled.setdefault(lease.request_id, answer.cost_micros) == answer.cost_micros

    @rule(lease=requests, used=st.integers(0, 60))
    def correct(self, lease: Lease, used: int) -> None:
        """What a provider says late: it holds once, and for no request that was never settled."""
        estimate = self.run(self.books.corrections.find("acme", lease.request_id))
        assert (estimate is None) == (lease.request_id not in self.settled)
        if estimate is None:
            return
        correction = Correction(estimate, Usage(), used)
        row = self.run(self.books.corrections.add(correction))
        if correction.request_id not in self.settled:
            assert row.cost_micros + row.overrun_micros == used - estimate.cost_micros - estimate.overrun_micros
        assert self.settled.setdefault(correction.request_id, row.cost_micros) == row.cost_micros

    @rule(lease=requests)
    def cancel(self, lease: Lease) -> None:
        self.run(self.books.reservations.release([lease]))

    @rule(lease=requests)
    def lapse(self, lease: Lease) -> None:
        self.sql("UPDATE reservations SET expire_time = now() WHERE request_id = %s", lease.request_id)
        self.run(self.books.reservations.sweep())
        assert not self.sql("SELECT 1 FROM reservations WHERE expire_time <= now()")

    @rule(target=budgets, scope=SCOPES, soft=st.booleans(), cycle=st.sampled_from(["month", "quarter", "prepaid"]))
    def make_budget(self, scope: tuple[str, str], soft: bool, cycle: str) -> str:
        team_id, key_id = scope
        new = NewBudget("acme", 0, f"b{next(self.numbers)}", team_id, key_id, cycle, soft=True)
        made = self.run(self.books.budgets.create(new))
        # It has borne what was spent before; hard, it begins with a little room.
        room = BudgetChange(limit_micros=made.spent_micros + made.reserved_micros + 20, soft=soft)
        self.run(self.books.budgets.change("acme", new.id, room))
        return new.id

    @rule(budget_id=budgets)
    def delete_budget(self, budget_id: str) -> None:
        self.run(self.books.budgets.delete("acme", budget_id))

    @rule()
    def keep_up(self) -> None:
        self.run(self.books.upkeep.run())

    @rule()
    def crash(self) -> None:
        """What was settled is still there; what was only held may be gone, row and counter together."""
        self.server.kill()
        self.server.start()
        # Pooled connections are found dead by whoever comes first.
        self.run(self.books.database.answers())

    @invariant()
    def books_balance(self) -> None:
        if not self.sql("SELECT 1 FROM pg_tables WHERE tablename = 'budgets'"):
            return
        assert self.sql(UNBALANCED) == []
        assert dict(self.sql("SELECT request_id, cost_micros FROM ledger")) == self.settled

    def sql(self, statement: str, *parameters: object) -> list[Any]:
        """Ask the database past all code."""
        with psycopg.connect(self.server.dsn(self.name), autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), parameters)
            return cursor.fetchall() if cursor.description else []


def test_the_books_balance_whatever_callers_do(postgres_factory: Callable[[], Postgres]) -> None:
    Callers.server = postgres_factory()
    run_state_machine_as_test(
        Callers,
        settings=settings(
            max_examples=6,
            stateful_step_count=12,
            # A step is a round trip to a database, and a crash of it takes a second.
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


async def test_callers_at_once_leave_books_that_balance(database_url: str) -> None:
    books = Books(database_url)
    await books.open()
    await books.budgets.create(NewBudget("acme", 30, "team", team_id="research"))

    async def spend(number: int) -> None:
        key_id = sorted(TEAMS)[number % 3]
        [held] = await books.reservations.hold([Hold("acme", key_id, f"r{number}", "m", "f", 3, NOW)])
        if held.refused:
            raise BudgetExceeded("refused")
        lease = Lease("acme", key_id, f"r{number}", "m", "RUB", NOW, held.team_id)
        await books.settlements.settle([Settlement(lease, "d", "p", Usage(), number % 5, 0, "stop")])

    # One wire carries one statement at a time, as the lanes of the room see to.
    passed = 0
    for number in range(90):
        try:
            await spend(number)
            passed += 1
        except BudgetExceeded:
            continue
    async with await psycopg.AsyncConnection.connect(database_url.replace("+psycopg", "")) as connection:
        assert await (await connection.execute(UNBALANCED.encode())).fetchall() == []
    assert passed < 90
    await books.close()
