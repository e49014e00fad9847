"""Records: events as canonical JSON, each holding the hash of the one before.

A record's body is what is hashed and stored, byte for byte. It follows RFC 8785: sorted keys, no spaces, strings,
integers, booleans, lists and objects alone; a value that says nothing is left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any

import orjson

from services.billing.audit.event import Attempt, Event, Finding

VERSION = 1
NOTHING = "0" * 64
"""What the first record of a chain holds in place of the hash of the one before."""


@dataclass(frozen=True, slots=True)
class Head:
    """Where a chain ends."""

    position: int = 0
    sha256: str = NOTHING


@dataclass(frozen=True, slots=True)
class Record:
    """One link of a tenant's chain."""

    tenant_id: str
    position: int
    request_id: str
    body: str
    sha256: str

    @property
    def head(self) -> Head:
        """The end of a chain whose last record this is."""
        return Head(self.position, self.sha256)

    def event(self) -> Event:
        """The event it was made of."""
        return _event(orjson.loads(self.body))


def chained(head: Head, events: Iterable[Event]) -> Iterator[Record]:
    """The records that follow `head`, in order; all events are one tenant's."""
    for event in events:
        place = {"v": VERSION, "position": head.position + 1, "previous": head.sha256}
        body = canonical({**_said(event), **place})
        record = Record(event.tenant_id, head.position + 1, event.request_id, body.decode(), sha256(body))
        yield record
        head = record.head


def canonical(body: dict[str, Any]) -> bytes:
    """The one way to write a body down."""
    return orjson.dumps(body, option=orjson.OPT_SORT_KEYS)


def sha256(body: bytes) -> str:
    """The hash of a record, hex."""
    return hashlib.sha256(body).hexdigest()


_DEFAULTS = {field.name: field.default for field in fields(Event)}
TIMES = {"create_time", "price_time"}
_FINDING = tuple(field.name for field in fields(Finding) if field.name != "masked_context")


def _said(event: Event) -> dict[str, Any]:
    """Every value that says something."""
    said = {name: value for name, default in _DEFAULTS.items() if (value := getattr(event, name)) != default}
    if event.findings:
        said["findings"] = [{name: getattr(found, name) for name in _FINDING} for found in event.findings]
    if event.attempts:
        said["attempts"] = [asdict(attempt) for attempt in event.attempts]
    for name in TIMES & said.keys():
        said[name] = said[name].astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return said


def _event(body: dict[str, Any]) -> Event:
    said = {name: body[name] for name in _DEFAULTS if name in body}
    for name in TIMES & said.keys():
        said[name] = datetime.fromisoformat(said[name])
    for name in ("guard_rules", "candidates"):
        said[name] = tuple(said.get(name, ()))
    said["findings"] = tuple(Finding(**found) for found in said.get("findings", ()))
    said["attempts"] = tuple(Attempt(**attempt) for attempt in said.get("attempts", ()))
    return Event(**said)
