"""A chain as JSON lines: its records in order, then its checkpoints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson

from services.billing.audit.chain import Record, canonical
from services.billing.audit.checkpoints import Checkpoint, CheckpointInvalid, stated
from services.billing.audit.verification import StoredRecord

MEDIA_TYPE = "application/x-ndjson"
_BEGINNING = b'{"checkpoint":"'
"""Of every line of an anchor."""


class ExportInvalid(Exception):
    """A file that is no export; the message says where."""


def record_line(record: Record) -> bytes:
    """A line of a record; its body is inside as it is."""
    return stored_line(StoredRecord(record.body.encode(), record.sha256))


def stored_line(record: StoredRecord) -> bytes:
    """A line of a record that nobody has looked at."""
    return b'{"record":%s,"sha256":"%s"}\n' % (record.body, record.sha256.encode())


def checkpoint_line(jws: str) -> bytes:
    """A line of a checkpoint; anchors hold nothing else."""
    return b'{"checkpoint":"%s"}\n' % jws.encode()


def tenant_of(path: Path) -> str:
    """Whose chain an export holds.

    Raises:
        ExportInvalid: If it is no export, or holds nothing: it is nobody's then.
    """
    for line in _lines(path):
        if "record" in line:
            return str(line["record"].get("tenant_id", ""))
        return _stated(path, str(line["checkpoint"])).tenant_id
    raise ExportInvalid(f"{path}: holds neither a record nor a checkpoint: say whose it should be (--tenant)")


def read_records(path: Path) -> Iterator[StoredRecord]:
    """The records of an export, as they lie in it."""
    for line in _lines(path):
        if "record" in line:
            yield StoredRecord(canonical(line["record"]), str(line.get("sha256", "")))


def read_checkpoints(path: Path) -> list[str]:
    """The checkpoints of an export, as they lie in it."""
    return [str(line["checkpoint"]) for line in _lines(path) if "checkpoint" in line]


def anchored(paths: Iterable[Path]) -> dict[str, list[str]]:
    """The checkpoints of anchors by tenant; a line that a full disk cut off is passed over.

    Raises:
        ExportInvalid: If a file is no anchor.
    """
    by_tenant: dict[str, list[str]] = {}
    for path in paths:
        for line in _lines(path, torn=True):
            if "checkpoint" in line:
                jws = str(line["checkpoint"])
                by_tenant.setdefault(_stated(path, jws).tenant_id, []).append(jws)
    return by_tenant


def _stated(path: Path, jws: str) -> Checkpoint:
    try:
        return stated(jws)
    except CheckpointInvalid as invalid:
        raise ExportInvalid(f"{path}: holds a checkpoint that is none: {invalid}") from None


def _is_torn(line: bytes) -> bool:
    """Whether a line that is not JSON is what a write that failed has left of a checkpoint's."""
    return line.startswith(_BEGINNING) or _BEGINNING.startswith(line.rstrip())


def _lines(path: Path, *, torn: bool = False) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                fields = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                if torn and _is_torn(line):
                    continue
                raise ExportInvalid(f"{path}:{number}: is not JSON: {error}") from None
            if not isinstance(fields, dict) or not (isinstance(fields.get("record"), dict) or "checkpoint" in fields):
                raise ExportInvalid(f"{path}:{number}: is neither a record nor a checkpoint")
            yield fields
