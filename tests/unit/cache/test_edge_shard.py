"""The embedded store: what it holds in memory, and what becomes of it when its disk fails."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from services.cache.vectorstores.edge_shard import Shard, shard
from services.cache.vectorstores.payload import ACCURATE, SKETCH, payload_of
from services.cache.vectorstores.port import Dimensions, Entry, Selection
from services.cache.vectorstores.upkeep import COMPACT_ALWAYS, Upkeep


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Shard]:
    """A store of its own."""
    with shard(tmp_path, Dimensions(2, 2)) as opened:
        yield opened


def put(store: Shard, **fields: Any) -> None:
    known: dict[str, Any] = {"entry_id": str(uuid4()), "tenant_id": "acme", "context": str(uuid4()), "expires_at": 9.0}
    entry = Entry(**ENTRY | known | fields)
    store.put(entry.entry_id, {ACCURATE: entry.vector, SKETCH: entry.sketch}, payload_of(entry))


ENTRY: dict[str, Any] = {
    "vector": [1.0, 0.0], "tokens": b"", "sketch": [1.0, 0.0], "model": "m", "question": "q", "answer": b"a",
    "stored_at": 0.0, "reference": "m:x", "subject": "", "worth": 1.0, "saves": 1.0,
}  # fmt: skip


def test_what_is_removed_is_not_held_in_memory_either(store: Shard) -> None:
    for expires_at in (1.0, 2.0, 9.0, 9.0, 9.0):
        put(store, expires_at=expires_at, worth=expires_at)
    put(store, tenant_id="rival", worth=9.0)
    for remove, left in ((lambda: store.forget_expired(1.5), 5), (lambda: store.forget_cheapest(4, share=4), 4)):
        assert (remove(), store.count(), len(store.sketches)) == (1, left, left)
    assert store.forget(Selection("acme")) == 3
    assert store.count() == len(store.sketches) == 1


def test_a_disk_without_room_to_compact_ends_nothing(store: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    def optimize() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "optimize", optimize)
    care = Upkeep(store)
    for _ in range(COMPACT_ALWAYS):
        care.note("put")
    assert next_request(care) == b"x"


@pytest.mark.parametrize(("removed", "compacted"), [(COMPACT_ALWAYS, 1), (0, 0)], ids=["many", "none"])
def test_of_what_is_removed_at_once_each_entry_counts(
    store: Shard, monkeypatch: pytest.MonkeyPatch, removed: int, compacted: int
) -> None:
    done: list[str] = []
    monkeypatch.setattr(store, "optimize", lambda: done.append("compacted"))
    care = Upkeep(store)
    for operation in ("put", "count", "forget_cheapest"):
        care.note(operation, 0)
    care.note("forget_expired", removed)
    next_request(care)
    assert len(done) == compacted


def next_request(care: Upkeep) -> bytes:
    """What there was to do is done before it is read."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.send(b"x")
        care.wait_for_work(ours)
        return ours.recv(1)
