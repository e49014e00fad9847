"""Finds what may ask the same by short codes in memory, so that a miss costs no accurate vector.

A code is the signs of a sketch, one bit each: 100,000 of them are compared in half a millisecond. What is near by code
is then compared by the sketch itself, one byte a number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Vector: TypeAlias = NDArray[np.float32]
Place: TypeAlias = tuple[str, str]
"""Tenant and context: the one partition whose entries may answer."""

RESCORED = 128
"""At least so many, nearest by code, are compared by their sketches."""
SAMPLED = 64
"""One row of so many is looked at first: its nearest is about as near as the 64th nearest of all."""
FIRST_CAPACITY = 8


class SketchIndex:
    """Sketches of all entries by partition. Whoever removes an entry from the store drops it here."""

    def __init__(self, dimensions: int) -> None:
        self._dimensions = dimensions
        self._partitions: dict[Place, _Partition] = {}
        self._places: dict[str, Place] = {}

    def put(self, entry_id: str, place: Place, sketch: Vector, expires_at: float) -> None:
        """Add an entry, or replace it."""
        self.drop(entry_id)
        partition = self._partitions.setdefault(place, _Partition(self._dimensions))
        partition.add(entry_id, sketch, expires_at)
        self._places[entry_id] = place

    def drop(self, entry_id: str) -> None:
        """Forget an entry, if it is there."""
        place = self._places.pop(entry_id, None)
        if place is None:
            return
        self._partitions[place].remove(entry_id)
        if not len(self._partitions[place]):
            del self._partitions[place]

    def near(self, place: Place, sketch: Vector, *, now: float, at_least: float, limit: int) -> list[tuple[str, float]]:
        """Ids and cosines of the nearest entries of a partition that have not expired, best first."""
        partition = self._partitions.get(place)
        return partition.near(sketch, now, at_least, limit) if partition else []

    def counts(self) -> Mapping[str, int]:
        """Entries by tenant."""
        return Counter(tenant_id for tenant_id, _ in self._places.values())

    def __len__(self) -> int:
        return len(self._places)


class _Partition:
    """Sketches in rows; the rows in use come first."""

    def __init__(self, dimensions: int) -> None:
        self._ids: list[str] = []
        self._rows_of: dict[str, int] = {}
        words = -(-dimensions // 64)
        self._codes = np.zeros((words, FIRST_CAPACITY), dtype=np.uint64)
        self._bytes = np.zeros((FIRST_CAPACITY, dimensions), dtype=np.int8)
        self._scales = np.zeros(FIRST_CAPACITY, dtype=np.float32)
        self._expiries = np.zeros(FIRST_CAPACITY)

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, entry_id: str, sketch: Vector, expires_at: float) -> None:
        row = len(self._ids)
        if row == len(self._scales):
            self._grow()
        self._codes[:, row] = _code(sketch)
        self._bytes[row], self._scales[row] = _compact(sketch)
        self._expiries[row] = expires_at
        self._ids.append(entry_id)
        self._rows_of[entry_id] = row

    def remove(self, entry_id: str) -> None:
        """The last row moves into the gap."""
        row, last = self._rows_of.pop(entry_id), len(self._ids) - 1
        moved = self._ids.pop()
        if row == last:
            return
        self._codes[:, row] = self._codes[:, last]
        self._bytes[row], self._scales[row] = self._bytes[last], self._scales[last]
        self._expiries[row] = self._expiries[last]
        self._ids[row] = moved
        self._rows_of[moved] = row

    def near(self, sketch: Vector, now: float, at_least: float, limit: int) -> list[tuple[str, float]]:
        rows = self._near_by_code(sketch)
        rows = rows[self._expiries[rows] > now]
        cosines = (self._bytes[rows].astype(np.float32) @ _unit(sketch)) * self._scales[rows]
        best = np.argsort(-cosines, kind="stable")[:limit]
        return [(self._ids[rows[at]], float(cosines[at])) for at in best if cosines[at] >= at_least]

    def _near_by_code(self, sketch: Vector) -> NDArray[np.intp]:
        used = len(self._ids)
        if used <= RESCORED:
            return np.arange(used)
        code = _code(sketch)
        differing = np.bitwise_count(self._codes[0, :used] ^ code[0])
        for word in range(1, len(code)):
            differing += np.bitwise_count(self._codes[word, :used] ^ code[word])
        # Counting a few times from the nearest of a sample on is cheaper than a histogram.
        limit = differing[::SAMPLED].min()
        while np.count_nonzero(near := differing <= limit) < RESCORED:
            limit += 1
        return np.flatnonzero(near)

    def _grow(self) -> None:
        capacity = 2 * len(self._scales)
        self._codes = np.pad(self._codes, ((0, 0), (0, capacity // 2)))
        self._bytes = np.pad(self._bytes, ((0, capacity // 2), (0, 0)))
        self._scales = np.pad(self._scales, (0, capacity // 2))
        self._expiries = np.pad(self._expiries, (0, capacity // 2))


def _code(sketch: Vector) -> NDArray[np.uint64]:
    bits = np.packbits(sketch > 0)
    code = np.zeros(-(-len(bits) // 8), dtype=np.uint64)
    code.view(np.uint8)[: len(bits)] = bits
    return code


def _compact(sketch: Vector) -> tuple[NDArray[np.int8], float]:
    """One byte a number, and what to multiply by for a vector of length 1."""
    unit = _unit(sketch)
    largest = float(np.abs(unit).max()) or 1.0
    return np.rint(unit / largest * 127).astype(np.int8), largest / 127


def _unit(sketch: Vector) -> Vector:
    length = float(np.sqrt(sketch @ sketch))
    return sketch / length if length else sketch
