"""The price book in Postgres: rows are only ever added, so that any past bill can be checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from operator import itemgetter
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, RowMapping, Table, exists, insert, select, text, tuple_
from sqlalchemy.dialects.postgresql import insert as insert_or_skip
from sqlalchemy.ext.asyncio import AsyncConnection

from meshkit.errors import FieldInvalid, ResourceExists
from services.billing.database.books import exchange_rates, margins, prices
from services.billing.database.engine import Database
from services.billing.database.repeats import done_before
from services.billing.database.schema import tenants
from services.billing.margins import Margin
from services.billing.once import Once
from services.billing.pagination import Position
from services.billing.price_list import PriceList
from services.billing.prices import ExchangeRate, Price

Row = TypeVar("Row", Price, ExchangeRate, Margin)

_IMPORTING = 0x6C6C6D70
"""Advisory lock: replicas that start together import one after the other."""
_BILLED_TENANTS = text("""
SELECT id FROM tenants WHERE EXISTS (SELECT FROM margins WHERE margins.tenant_id = tenants.id)
    OR EXISTS (SELECT FROM ledger WHERE ledger.tenant_id = tenants.id)
""")


class PriceConflict(Exception):
    """A price list changes what is in the book already, or names a tenant that does not exist."""


@dataclass(frozen=True, slots=True)
class Kind(Generic[Row]):
    """Rows of one table: each says what holds for its name from its date on."""

    table: Table
    name: str
    """Column of what a row is about."""
    row_type: type[Row]
    since_ever: bool = False
    """Whether something was in force before the first row: having no margin is a margin too."""

    def read(self, row: RowMapping) -> Row:
        """A row as it is read."""
        return self.row_type(**{field.name: row[field.name] for field in fields(self.row_type)})


PRICES = Kind(prices, "deployment", Price)
RATES = Kind(exchange_rates, "currency_code", ExchangeRate)
MARGINS = Kind(margins, "tenant_id", Margin, since_ever=True)


class PriceStore:
    """Reads the book and adds to it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> tuple[list[Price], list[ExchangeRate], list[Margin]]:
        """Every price, every exchange rate and every margin there ever was or will be."""
        return await self._all(PRICES), await self._all(RATES), await self._all(MARGINS)

    async def page(
        self,
        kind: Kind[Row],
        name: str,
        *,
        most: int,
        after: Position | None,
        in_force_time: datetime | None = None,
    ) -> list[Row]:
        """At most `most` rows of a name, or of all if empty, by name and date; those in force at a time, if any."""
        own, dated = kind.table.c[kind.name], kind.table.c.effective_time
        wanted: list[ColumnElement[bool]] = [own == name] if name else []
        if after:
            wanted.append(tuple_(own, dated) > (after.id, after.time))
        if in_force_time:
            wanted += _in_force(kind.table, kind.name, in_force_time)
        statement = select(kind.table).where(*wanted).order_by(own, dated).limit(most)
        return [kind.read(row) for row in await self._database.fetch(f"list_{kind.table.name}", statement)]

    async def create(self, kind: Kind[Row], row: Row, *, asked: datetime, once: Once | None) -> Row:
        """Add one row.

        Raises:
            FieldInvalid: If it is dated before it was asked for.
            ResourceExists: If there is one of this very date.
        """
        values = asdict(row)
        async with self._database.transaction(f"create_{kind.table.name}") as connection:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _IMPORTING})
            date = await done_before(connection, once, row.effective_time.isoformat())
            if date:
                values["effective_time"] = datetime.fromisoformat(date)
                return await _dated(connection, kind, values)
            if row.effective_time < asked:
                raise FieldInvalid("effective_time", "must not lie in the past: history is never rewritten")
            statement = insert_or_skip(kind.table).values(values).on_conflict_do_nothing().returning(kind.table.c.id)
            if (await connection.execute(statement)).one_or_none() is None:
                resource = f"{kind.table.name}/{values[kind.name]}"
                raise ResourceExists(f"{resource!r} has a row of this date already: take another.", resource=resource)
            return await _dated(connection, kind, values)

    async def add(self, listed: PriceList) -> int:
        """Add what a list says and the book does not; says how many rows were added.

        Raises:
            PriceConflict: If the list would change what was in force before it was read, or names an unknown tenant.
        """
        async with self._database.transaction("add_prices") as connection:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _IMPORTING})
            await _check_tenants(connection, listed.margins)
            # What the book never priced has no history that a whole one could rewrite.
            priced = await _names(connection, PRICES)
            rated = await _names(connection, RATES)
            billed = set((await connection.execute(_BILLED_TENANTS)).scalars()) if listed.margins else set()
            now = listed.read_time
            return sum(
                [
                    await _add_all(connection, PRICES, listed.prices, now, kept=priced),
                    await _add_all(connection, RATES, listed.rates, now, kept=rated),
                    await _add_all(connection, MARGINS, listed.margins, now, kept=billed),
                ]
            )

    async def _all(self, kind: Kind[Row]) -> list[Row]:
        rows = await self._database.fetch(f"all_{kind.table.name}", select(kind.table))
        return [kind.read(row) for row in rows]


def _in_force(table: Table, name: str, at: datetime) -> list[ColumnElement[bool]]:
    later = table.alias("later")
    replaced = exists().where(
        later.c[name] == table.c[name],
        later.c.effective_time > table.c.effective_time,
        later.c.effective_time <= at,
    )
    return [table.c.effective_time <= at, ~replaced]


async def _dated(connection: AsyncConnection, kind: Kind[Row], values: dict[str, Any]) -> Row:
    own, dated = kind.table.c[kind.name], kind.table.c.effective_time
    statement = select(kind.table).where(own == values[kind.name], dated == values["effective_time"])
    return kind.read((await connection.execute(statement)).mappings().one())


async def _names(connection: AsyncConnection, kind: Kind[Row]) -> set[str]:
    return set((await connection.execute(select(kind.table.c[kind.name]).distinct())).scalars())


async def _check_tenants(connection: AsyncConnection, listed: Sequence[Margin]) -> None:
    named = {margin.tenant_id for margin in listed}
    known = set((await connection.execute(select(tenants.c.id).where(tenants.c.id.in_(named)))).scalars())
    if named - known:
        lost = ", ".join(sorted(named - known))
        raise PriceConflict(f"The price list has margins of tenants that do not exist: {lost}.")


async def _add_all(
    connection: AsyncConnection, kind: Kind[Row], rows: Sequence[Row], now: datetime, *, kept: set[str]
) -> int:
    """Add rows; the history of names in `kept` is not to be changed."""
    listed = sorted(map(asdict, rows), key=itemgetter("effective_time"))
    return sum([await _add(connection, kind, row, now, strict=row[kind.name] in kept) for row in listed])


async def _add(
    connection: AsyncConnection, kind: Kind[Row], row: dict[str, Any], now: datetime, *, strict: bool
) -> int:
    from_then_on, own, dated = row["effective_time"], kind.table.c[kind.name], kind.table.c.effective_time
    before = select(kind.table).where(own == row[kind.name], dated <= from_then_on)
    statement = before.order_by(dated.desc()).limit(1)
    known = (await connection.execute(statement)).mappings().one_or_none()
    if known and all(known[column] == value for column, value in row.items() if column != "effective_time"):
        return 0
    same_date = known and known["effective_time"] == from_then_on
    if strict and (same_date or (from_then_on < now and (known or kind.since_ever))):
        raise PriceConflict(
            f"The price list changes {row[kind.name]!r} from {from_then_on.isoformat()} on, where the book has a price "
            "already: history is never rewritten. Date the row in the future, or leave its date out."
        )
    await connection.execute(insert(kind.table).values(row))
    return 1
