"""The embedded store itself: Qdrant's engine on one folder. Synchronous; lives in the owner process only."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias
from uuid import UUID

import numpy as np
from qdrant_edge import (
    CountRequest,
    Distance,
    EdgeConfig,
    EdgeOptimizersConfig,
    EdgeShard,
    EdgeVectorParams,
    FieldCondition,
    Filter,
    HasIdCondition,
    MatchPrefix,
    MatchValue,
    OrderBy,
    PayloadSchemaType,
    Point,
    Query,
    QueryRequest,
    RangeFloat,
    ScrollRequest,
    UpdateOperation,
)

from services.cache.vectorstores.folder import owned
from services.cache.vectorstores.payload import (
    ACCURATE,
    ANSWERING,
    EXPIRY,
    KEYWORDS,
    NUMBERS,
    SEALED_BY,
    SKETCH,
    STORED,
    WORTH,
    equal_fields,
)
from services.cache.vectorstores.port import Dimensions, Glance, Near, Selection
from services.cache.vectorstores.sketches import SketchIndex
from services.cache.vectorstores.surplus import surplus

Found: TypeAlias = tuple[str, float, dict[str, Any] | None]
"""Id, similarity and payload."""
Vectors: TypeAlias = Mapping[str, Sequence[float]]
"""By name."""

NO_GRAPH_KILOBYTES = 1_000_000_000
"""Size of a segment before a graph is built: never. A filtered scan costs about 0.3 us an entry of the partition,
while building the graph of 60,000 entries holds the process for a minute or more."""


SCROLL_STEP = 2000


class Shard:
    """All tenants' entries in one shard."""

    def __init__(self, engine: EdgeShard, sketches: SketchIndex) -> None:
        self._engine = engine
        self.sketches = sketches
        """In memory, of exactly the entries that are stored."""
        for point in _points(engine, with_payload=["tenant", "context", EXPIRY], with_vector=[SKETCH]):
            self._note(str(point.id), point.vector[SKETCH], point.payload)

    def plausible(self, glance: Glance) -> list[tuple[str, float, str]]:
        """Id, similarity of the sketches and question of the entries of the partition that are nearest by sketch."""
        found = self.sketches.near(
            (glance.tenant_id, glance.context),
            np.array(glance.sketch, dtype=np.float32),
            now=glance.now,
            at_least=glance.at_least,
            limit=glance.limit,
        )
        ids: list[int | UUID | str] = [UUID(entry_id) for entry_id, _ in found]
        points = self._engine.retrieve(ids, with_payload=["question"], with_vector=False) if ids else []
        questions = {str(point.id): (point.payload or {}).get("question", "") for point in points}
        return [(entry_id, cosine, questions[entry_id]) for entry_id, cosine in found if entry_id in questions]

    def nearest(self, near: Near) -> list[Found]:
        """Id, similarity and payload of the most similar entries of the partition, best first."""
        request = QueryRequest(
            limit=near.limit,
            query=Query.Nearest(list(near.vector), using=ACCURATE),
            filter=_partition(near),
            score_threshold=near.at_least,
            with_payload=list(ANSWERING),
        )
        return [(str(point.id), point.score, point.payload) for point in self._engine.query(request)]

    def put(self, entry_id: str, vectors: Vectors, payload: Mapping[str, Any]) -> None:
        """Store an entry in the write-ahead log and the segment."""
        self.put_all([(entry_id, vectors, payload)])

    def put_all(self, entries: Sequence[tuple[str, Vectors, Mapping[str, Any]]]) -> None:
        """Store entries in one step: a tenth of the time of one after another."""
        points = [
            Point(UUID(entry_id), {name: list(vector) for name, vector in vectors.items()}, dict(payload))
            for entry_id, vectors, payload in entries
        ]
        self._engine.update(UpdateOperation.upsert_points(points))
        for entry_id, vectors, payload in entries:
            self._note(entry_id, vectors[SKETCH], payload)

    def forget(self, selection: Selection) -> int:
        """Remove the entries of a selection; returns how many."""
        return self._remove(_selected(selection))

    def reprice(self, worths: Mapping[str, float]) -> None:
        """Set what entries are worth; a removed one has no payload to set."""
        for entry_id, worth in worths.items():
            if self._engine.retrieve([UUID(entry_id)], with_payload=False, with_vector=False):
                self._engine.update(UpdateOperation.set_payload([UUID(entry_id)], {WORTH: worth}))

    def forget_cheapest(self, most: int, *, share: int) -> int:
        """Remove the entries worth least until at most `most` are left, first of tenants with more than `share`."""
        excess = self.count() - most
        if excess <= 0:
            return 0
        going = surplus(self.sketches.counts(), excess=excess, share=share)
        return sum(self._remove_cheapest(number, tenant_id) for tenant_id, number in going)

    def forget_expired(self, now: float) -> int:
        """Remove entries expired by `now`; returns how many."""
        return self._remove(Filter(must=[FieldCondition(EXPIRY, range=RangeFloat(lte=now))]))

    def count(self, selection: Selection | None = None) -> int:
        """Entries held, or those of a selection, the expired included."""
        return self._engine.count(CountRequest(filter=_selected(selection) if selection else None))

    def flush(self) -> None:
        """Write everything to disk, so that the next start replays no log."""
        self._engine.flush()

    def optimize(self) -> None:
        """Merge segments and drop what was removed; holds the process until done, 0.1 ms an entry."""
        self._engine.optimize()

    def _note(self, entry_id: str, sketch: Sequence[float], payload: Mapping[str, Any]) -> None:
        place = (payload["tenant"], payload["context"])
        self.sketches.put(entry_id, place, np.array(sketch, dtype=np.float32), payload[EXPIRY])

    def _remove_cheapest(self, number: int, tenant_id: str) -> int:
        """Of one tenant, or of all where none is named."""
        whose = Filter(must=[_equals("tenant", tenant_id)]) if tenant_id else None
        cheapest, _ = self._engine.scroll(ScrollRequest(limit=number, filter=whose, order_by=OrderBy(WORTH)))
        self._engine.update(UpdateOperation.delete_points([point.id for point in cheapest]))
        self._drop(cheapest)
        return len(cheapest)

    def _remove(self, condition: Filter) -> int:
        if not self._engine.count(CountRequest(filter=condition)):
            return 0
        removed = list(_points(self._engine, filter=condition, with_payload=False, with_vector=False))
        self._engine.update(UpdateOperation.delete_points_by_filter(condition))
        self._drop(removed)
        return len(removed)

    def _drop(self, points: Iterable[Any]) -> None:
        for point in points:
            self.sketches.drop(str(point.id))


@contextmanager
def shard(path: Path, dimensions: Dimensions) -> Iterator[Shard]:
    """Open the shard in folder `path`, made when missing; flushed and closed at the end of the block.

    Raises:
        ShardHeld: If another process owns it.
    """
    with owned(path) as place:
        engine = _engine(place, dimensions)
        try:
            yield Shard(engine, SketchIndex(dimensions.sketch))
        finally:
            engine.close()


def _engine(path: Path, dimensions: Dimensions) -> EdgeShard:
    config = EdgeConfig(
        vectors={
            ACCURATE: EdgeVectorParams(size=dimensions.accurate, distance=Distance.Cosine),
            SKETCH: EdgeVectorParams(size=dimensions.sketch, distance=Distance.Cosine),
        },
        optimizers=EdgeOptimizersConfig(indexing_threshold=NO_GRAPH_KILOBYTES),
    )
    if path.exists():
        return _indexed(EdgeShard.load(str(path), config))
    # Made beside and moved into place: a kill half-way leaves no half a shard to load.
    fresh = path.with_name("shard.new")
    shutil.rmtree(fresh, ignore_errors=True)
    engine = EdgeShard.create(str(fresh), config)
    engine.close()
    fresh.rename(path)
    return _indexed(EdgeShard.load(str(path), config))


def _indexed(engine: EdgeShard) -> EdgeShard:
    """With every index there is; what an earlier version made stays."""
    for kind, fields in ((PayloadSchemaType.Keyword, KEYWORDS), (PayloadSchemaType.Float, NUMBERS)):
        for field in fields:
            engine.update(UpdateOperation.create_field_index(field, kind))
    return engine


def _selected(selection: Selection) -> Filter:
    conditions = [_equals(field, wanted) for field, wanted in equal_fields(selection)]
    if selection.question_prefix:
        conditions.append(FieldCondition("question", match=MatchPrefix(selection.question_prefix)))
    if selection.stored_until is not None:
        conditions.append(FieldCondition(STORED, range=RangeFloat(lte=selection.stored_until)))
    others_than = selection.sealed_by_others_than
    return Filter(must=list(conditions), must_not=[_equals(SEALED_BY, others_than)] if others_than else None)


def _partition(near: Near) -> Filter:
    unexpired = FieldCondition(EXPIRY, range=RangeFloat(gt=near.now))
    conditions: list[Any] = [_equals("tenant", near.tenant_id), _equals("context", near.context), unexpired]
    if near.among:
        conditions.append(HasIdCondition({UUID(entry_id) for entry_id in near.among}))
    return Filter(must=conditions)


def _points(engine: EdgeShard, **wanted: Any) -> Iterator[Any]:
    """Every entry, as far as it is wanted."""
    offset = None
    while True:
        points, offset = engine.scroll(ScrollRequest(offset=offset, limit=SCROLL_STEP, **wanted))
        yield from points
        if offset is None:
            return


def _equals(field: str, value: str) -> FieldCondition:
    return FieldCondition(field, match=MatchValue(value))
