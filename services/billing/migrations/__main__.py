"""`python -m services.billing.migrations`: bring the database up to date and leave."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys

from sqlalchemy.ext.asyncio import create_async_engine

from meshkit.errors import DependencyUnavailable
from services.billing.migrations.upgrade import upgrade

_VARIABLE = "LLMMESH_BILLING_DATABASE_URL"


async def _run(database_url: str) -> None:
    engine = create_async_engine(database_url, connect_args={"connect_timeout": 10})
    try:
        await upgrade(engine)
    finally:
        await engine.dispose()


def main() -> None:
    """Read the address, migrate, say so."""
    parser = argparse.ArgumentParser(prog="python -m services.billing.migrations", description=__doc__)
    parser.add_argument("--database-url", default=os.environ.get(_VARIABLE), help=f"default: ${_VARIABLE}")
    database_url = parser.parse_args().database_url
    if not database_url:
        parser.error(f"give --database-url or set {_VARIABLE}")
    try:
        asyncio.run(_run(database_url))
    except DependencyUnavailable as error:
        sys.exit(f"{error} ({type(error.__cause__).__name__})")
    print("The database is up to date.")


if __name__ == "__main__":
    main()
