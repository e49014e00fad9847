"""The price book in Postgres: rows are only ever added, so that any past bill can be checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from operator import itemgetter
from typing import Any

from sqlalchemy import RowMapping, Table, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing.database.books import exchange_rates, prices
from services.billing.database.engine import Database
from services.billing.price_list import PriceList
from services.billing.prices import ExchangeRate, Price

_IMPORTING = 0x6C6C6D70
"""Advisory lock: replicas that start together import one after the other."""


class PriceConflict(Exception):
    """A price list changes a row that is in the book already."""


class PriceStore:
    """Reads the book and adds to it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> tuple[list[Price], list[ExchangeRate]]:
        """Every price and every exchange rate there ever was or will be."""
        price_rows = await self._database.fetch("all_prices", select(prices))
        rate_rows = await self._database.fetch("all_rates", select(exchange_rates))
        return [_price(row) for row in price_rows], [_rate(row) for row in rate_rows]

    async def add(self, listed: PriceList) -> int:
        """Add what a list says and the book does not; says how many rows were added.

        Raises:
            PriceConflict: If the list would change what was in force before it was read.
        """
        async with self._database.transaction("add_prices") as connection:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _IMPORTING})
            return sum(
                [
                    await _add_all(connection, prices, "deployment", listed.prices, listed.read_time),
                    await _add_all(connection, exchange_rates, "currency_code", listed.rates, listed.read_time),
                ]
            )


async def _add_all(
    connection: AsyncConnection, table: Table, name: str, rows: Sequence[Price | ExchangeRate], now: datetime
) -> int:
    # What the book never priced has no history that a whole one could rewrite.
    priced = set((await connection.execute(select(table.c[name]).distinct())).scalars())
    listed = sorted(map(asdict, rows), key=itemgetter("effective_time"))
    return sum([await _add(connection, table, name, row, now, strict=row[name] in priced) for row in listed])


async def _add(
    connection: AsyncConnection, table: Table, name: str, row: dict[str, Any], now: datetime, *, strict: bool
) -> int:
    from_then_on = row["effective_time"]
    statement = (
        select(table)
        .where(table.c[name] == row[name], table.c.effective_time <= from_then_on)
        .order_by(table.c.effective_time.desc())
        .limit(1)
    )
    known = (await connection.execute(statement)).mappings().one_or_none()
    if known and all(known[column] == value for column, value in row.items() if column != "effective_time"):
        return 0
    if known and strict and (from_then_on < now or known["effective_time"] == from_then_on):
        raise PriceConflict(
            f"The price list changes {row[name]!r} from {from_then_on.isoformat()} on, where the book has a price "
            "already: history is never rewritten. Date the row in the future, or leave its date out."
        )
    await connection.execute(insert(table).values(row))
    return 1


def _price(row: RowMapping) -> Price:
    return Price(
        deployment=row["deployment"],
        currency_code=row["currency_code"],
        input_micros=row["input_micros"],
        cached_input_micros=row["cached_input_micros"],
        output_micros=row["output_micros"],
        effective_time=row["effective_time"],
        cache_write_micros=row["cache_write_micros"],
        reasoning_micros=row["reasoning_micros"],
        image_micros=row["image_micros"],
        request_micros=row["request_micros"],
    )


def _rate(row: RowMapping) -> ExchangeRate:
    return ExchangeRate(row["currency_code"], row["rate_micros"], row["effective_time"])
