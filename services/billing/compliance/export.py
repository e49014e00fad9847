"""Violations as a file for a SIEM."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields

import orjson

from services.billing.compliance.violation import Violation

_COLUMNS = tuple(field.name for field in fields(Violation))
_FORMULA = ("=", "+", "-", "@", "\t")
"""What spreadsheets take for the beginning of a formula."""


@dataclass(frozen=True, slots=True)
class Format:
    """One form of an export."""

    media_type: str
    header: bytes
    lines: Callable[[Iterable[Violation]], bytes]


def _jsonl(violations: Iterable[Violation]) -> bytes:
    return b"".join(orjson.dumps(asdict(violation), option=orjson.OPT_UTC_Z) + b"\n" for violation in violations)


def _csv(violations: Iterable[Violation]) -> bytes:
    return _rows([getattr(violation, name) for name in _COLUMNS] for violation in violations)


def _rows(rows: Iterable[Iterable[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue().encode()


def _cell(value: object) -> str:
    shown = " ".join(value) if isinstance(value, tuple) else str(value)
    return f"'{shown}" if shown.startswith(_FORMULA) else shown


FORMATS: Mapping[str, Format] = {
    "jsonl": Format("application/x-ndjson", b"", _jsonl),
    "csv": Format("text/csv; charset=utf-8", _rows([_COLUMNS]), _csv),
}
