"""`python -m services.billing.export`: a tenant's ledger rows of a period as CSV, JSON lines or Parquet.

They go to standard output as they come: however many there are, they never stand in memory together.
"""

from __future__ import annotations

import argparse
import os
import sys
from datetime import UTC, datetime
from typing import Any, BinaryIO

import psycopg
import pyarrow as arrow
from psycopg.rows import dict_row
from pyarrow import parquet
from sqlalchemy import make_url

from meshkit.errors import FieldInvalid
from services.billing.fields import check_id

_VARIABLE = "LLMMESH_BILLING_DATABASE_URL"
CONNECT_SECONDS = 10
FETCHED_AT_ONCE = 2000
ROWS_IN_A_GROUP = 20_000
_COLUMNS = """request_id, create_time, tenant_id, team_id, key_id, tags, model, deployment, provider, cache_status,
    finish_reason, input_tokens, cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens, estimated,
    cost_micros, saved_micros, overrun_micros, currency_code, correction, stop, margin_micros, margin_points"""
_ROWS = f"""
SELECT {_COLUMNS} FROM ledger
WHERE tenant_id = %(tenant_id)s AND create_time >= %(start)s AND create_time < %(end)s ORDER BY create_time, id
"""  # noqa: S608 - made of constants


_KINDS = {
    "create_time": arrow.timestamp("us", tz="UTC"),
    "tags": arrow.list_(arrow.string()),
    "estimated": arrow.bool_(),
    "correction": arrow.bool_(),
}


def _kind(column: str) -> arrow.DataType:
    if column.endswith(("_tokens", "_micros", "_points")):
        return arrow.int64()
    return _KINDS.get(column, arrow.string())


_SCHEMA = arrow.schema([(column, _kind(column)) for column in _COLUMNS.replace(",", " ").split()])


def write_csv(connection: psycopg.Connection[Any], period: dict[str, object], out: BinaryIO) -> None:
    """Write a line of column names, then one per row (RFC 4180)."""
    with connection.cursor() as cursor, cursor.copy(f"COPY ({_ROWS}) TO STDOUT (FORMAT csv, HEADER)", period) as rows:
        out.writelines(rows)


def write_jsonl(connection: psycopg.Connection[Any], period: dict[str, object], out: BinaryIO) -> None:
    """Write an object per line."""
    with connection.cursor("rows") as cursor:
        cursor.itersize = FETCHED_AT_ONCE
        cursor.execute(f"SELECT CAST(row_to_json(row) AS text) FROM ({_ROWS}) AS row", period)  # noqa: S608 - constants
        out.writelines(line.encode() + b"\n" for (line,) in cursor)


def write_parquet(connection: psycopg.Connection[Any], period: dict[str, object], out: BinaryIO) -> None:
    """Write row groups of as many rows as are fetched at once; amounts stay integers of micro-units."""
    with connection.cursor("rows", row_factory=dict_row) as cursor, parquet.ParquetWriter(out, _SCHEMA) as writer:
        cursor.execute(_ROWS, period)
        while rows := cursor.fetchmany(ROWS_IN_A_GROUP):
            writer.write_table(arrow.Table.from_pylist(rows, schema=_SCHEMA))


FORMATS = {"csv": write_csv, "jsonl": write_jsonl, "parquet": write_parquet}


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m services.billing.export", description=__doc__)
    parser.add_argument("--database-url", default=os.environ.get(_VARIABLE), help=f"default: ${_VARIABLE}")
    parser.add_argument("--tenant", required=True, help="whose rows")
    parser.add_argument("--start", required=True, type=_time, help="from here, such as 2026-11-01 (UTC)")
    parser.add_argument("--end", required=True, type=_time, help="up to here")
    parser.add_argument("--format", choices=FORMATS, default="csv", help="default: csv")
    arguments = parser.parse_args()
    if not arguments.database_url:
        parser.error(f"give --database-url or set {_VARIABLE}")
    return arguments


def main() -> None:
    """Read the arguments, write the rows."""
    given = _arguments()
    address = make_url(given.database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    try:
        period = {"tenant_id": check_id("--tenant", given.tenant), "start": given.start, "end": given.end}
        with psycopg.connect(address, connect_timeout=CONNECT_SECONDS) as connection:
            FORMATS[given.format](connection, period, sys.stdout.buffer)
    except (FieldInvalid, psycopg.OperationalError) as error:
        sys.exit(f"export: {type(error).__name__ if isinstance(error, psycopg.Error) else error}")


if __name__ == "__main__":
    main()
