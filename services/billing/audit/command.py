"""Checks the audit log, offline or in the live database, and exports it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

import orjson
import psycopg
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, OKPKey

from services.billing.audit.checkpoints import public_keys
from services.billing.audit.export import (
    ExportInvalid,
    anchored,
    checkpoint_line,
    read_checkpoints,
    read_records,
    stored_line,
    tenant_of,
)
from services.billing.audit.verification import Report, verified
from services.billing.database.snapshot import Snapshot, snapshot
from services.billing.key_file import read_signing_keys

URL, KEY_FILES = "LLMMESH_BILLING_DATABASE_URL", ("LLMMESH_BILLING_AUDIT_KEY_FILE", "LLMMESH_BILLING_SIGNING_KEY_FILE")
INTACT, TAMPERED, UNUSABLE = 0, 1, 2
_VERIFY = """Go along each chain and name the first record that was altered, is missing, stands elsewhere or was cut
off, and the first checkpoint that was replaced. Status 0: all is intact; 1: something is not; 2: it cannot tell."""


def main(given: Sequence[str] | None = None) -> NoReturn:
    """Run the command line; the status is 0 when all is intact, 1 when not, 2 when that cannot be said."""
    arguments = _arguments(given)
    try:
        sys.exit(arguments.run(arguments))
    except (ExportInvalid, OSError, ValueError, KeyError, JoseError, psycopg.Error) as error:
        print(f"llmmesh-audit: {error}", file=sys.stderr)
        sys.exit(UNUSABLE)


def _verify(arguments: argparse.Namespace) -> int:
    reports = list(_of_exports(arguments) if arguments.exports else _of_database(arguments))
    for report in reports:
        print(orjson.dumps(asdict(report)).decode() if arguments.json else _told(report))
    if not reports:
        print("llmmesh-audit: there is nothing to verify", file=sys.stderr)
        return UNUSABLE
    return TAMPERED if any(report.fault for report in reports) else INTACT


def _of_exports(arguments: argparse.Namespace) -> Iterator[Report]:
    keys, anchors = _keys(arguments.keys), anchored(arguments.anchor)
    named = arguments.tenant or []
    if len(named) > 1:
        raise ValueError("give --tenant once where exports are given")
    for path in arguments.exports:
        tenant_id = named[0] if named else tenant_of(path)
        yield verified(
            tenant_id,
            read_records(path),
            checkpoints=read_checkpoints(path),
            anchored=anchors.get(tenant_id, []),
            keys=keys,
        )


def _of_database(arguments: argparse.Namespace) -> Iterator[Report]:
    keys, anchors = _keys(arguments.keys), anchored(arguments.anchor)
    with _database(arguments) as database:
        for tenant_id in arguments.tenant or sorted({*database.tenants(), *anchors}):
            yield verified(
                tenant_id,
                database.records(tenant_id),
                checkpoints=database.checkpoints(tenant_id),
                anchored=anchors.get(tenant_id, []),
                keys=keys,
                head=database.head(tenant_id),
            )


def _export(arguments: argparse.Namespace) -> int:
    with _database(arguments) as database, arguments.output.open("wb") as file:
        for record in database.records(arguments.tenant):
            file.write(stored_line(record))
        for jws in database.checkpoints(arguments.tenant):
            file.write(checkpoint_line(jws))
    return INTACT


def _show_keys(arguments: argparse.Namespace) -> int:
    print(public_keys(read_signing_keys(arguments.key_file)).decode())
    return INTACT


def _told(report: Report) -> str:
    if report.fault is None:
        open_end = report.records - report.sealed
        return (
            f"{report.tenant_id}: intact: {report.records} records, {report.checkpoints} checkpoints, "
            f"{open_end} records younger than the last checkpoint"
        )
    request = f" (request {report.fault.request_id})" if report.fault.request_id else ""
    return f"{report.tenant_id}: {report.fault.kind}: {report.fault.detail}{request}"


def _keys(path: Path | None) -> KeySet:
    """The public keys in a file: a JSON Web Key Set, what GetChain answers, or a single key."""
    if path is None:
        raise ValueError(f"give --keys: without them no checkpoint can be trusted (or set {KEY_FILES[0]})")
    found = orjson.loads(path.read_bytes())
    found = orjson.loads(found["keys_json"]) if "keys_json" in found else found
    return KeySet.import_key_set(found if "keys" in found else orjson.loads(public_keys([OKPKey.import_key(found)])))


def _database(arguments: argparse.Namespace) -> AbstractContextManager[Snapshot]:
    if not arguments.database_url:
        raise ValueError(f"give --database-url or set {URL}")
    return snapshot(arguments.database_url)


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="llmmesh-audit", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    _verify_arguments(commands.add_parser("verify", help="find the first fault of each chain", description=_VERIFY))
    export = commands.add_parser("export", help="write a tenant's chain as JSON lines")
    export.add_argument("--tenant", required=True, help="whose chain")
    export.add_argument("--output", type=Path, default=Path("/dev/stdout"), help="file to write (default: print)")
    _database_argument(export)
    export.set_defaults(run=_export)
    keys = commands.add_parser("keys", help="print the public keys of private ones, for --keys")
    keys.add_argument("key_file", type=Path, help="the private JWK, or a set of them")
    keys.set_defaults(run=_show_keys)
    return parser.parse_args(given)


def _verify_arguments(verify: argparse.ArgumentParser) -> None:
    verify.add_argument("exports", nargs="*", type=Path, help="exports; without any, the live database is looked at")
    verify.add_argument(
        "--tenant",
        action="append",
        help="of the database only this tenant's chain (may be repeated); of exports, whose they should be",
    )
    verify.add_argument(
        "--keys",
        type=Path,
        default=next((Path(path) for name in KEY_FILES if (path := os.environ.get(name))), None),
        help=f"public keys of the checkpoints: a key set, what GetChain answers, or a JWK (default: ${KEY_FILES[0]})",
    )
    verify.add_argument(
        "--anchor", action="append", type=Path, default=[], help="checkpoints kept elsewhere; may be repeated"
    )
    verify.add_argument("--json", action="store_true", help="print a JSON object per tenant")
    _database_argument(verify)
    verify.set_defaults(run=_verify)


def _database_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--database-url", default=os.environ.get(URL, ""), help=f"default: ${URL}")
