"""`python -m services.billing.price_book`: the whole price book as a file, and a file added to it.

A room that runs takes what is imported at once.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

from meshkit.errors import DependencyUnavailable
from services.billing.database.engine import Database
from services.billing.database.prices import PriceConflict, PriceStore
from services.billing.price_list import as_csv, as_yaml, read_price_list

_VARIABLE = "LLMMESH_BILLING_DATABASE_URL"
SECONDS = 30.0
FORMATS = {"yaml": as_yaml, "csv": as_csv}


async def _exported(prices: PriceStore, format_name: str) -> str:
    return FORMATS[format_name](*await prices.all())


async def _imported(prices: PriceStore, path: Path, base_currency: str) -> str:
    added = await prices.add(read_price_list(path, base_currency))
    return f"{added} rows added.\n"


async def _run(given: argparse.Namespace) -> str:
    database = Database(given.database_url, seconds=SECONDS, connections=1)
    database.open()
    try:
        prices = PriceStore(database)
        if given.command == "export":
            return await _exported(prices, given.format)
        return await _imported(prices, given.file, given.base_currency)
    finally:
        await database.close()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m services.billing.price_book", description=__doc__)
    parser.add_argument("--database-url", default=os.environ.get(_VARIABLE), help=f"default: ${_VARIABLE}")
    commands = parser.add_subparsers(dest="command", required=True)
    export = commands.add_parser("export", help="every row there ever was or will be, on standard output")
    export.add_argument("--format", choices=FORMATS, default="yaml", help="default: yaml")
    importing = commands.add_parser("import", help="add what the file says and the book does not")
    importing.add_argument("file", type=Path, help="a YAML file, or a table if its name ends in .csv")
    importing.add_argument(
        "--base-currency",
        default=os.environ.get("LLMMESH_BILLING_BASE_CURRENCY", "RUB"),
        help="currency that exchange rates are in (default: $LLMMESH_BILLING_BASE_CURRENCY, else RUB)",
    )
    arguments = parser.parse_args()
    if not arguments.database_url:
        parser.error(f"give --database-url or set {_VARIABLE}")
    return arguments


def main() -> None:
    """Read the arguments, export or import."""
    try:
        sys.stdout.write(asyncio.run(_run(_arguments())))
    except (ValueError, PriceConflict, DependencyUnavailable) as error:
        sys.exit(f"price_book: {error}")


if __name__ == "__main__":
    main()
