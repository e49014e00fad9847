"""The semantic level in a Qdrant server or cluster."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from grpc import StatusCode
from grpc.aio import AioRpcError
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException

from meshkit.dependency import Dependency, Unusable
from services.cache.vectorstores.matching import matches
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
    payload_of,
)
from services.cache.vectorstores.port import Dimensions, Entry, Glance, Match, Near, Plausible, Selection
from services.cache.vectorstores.surplus import surplus

T = TypeVar("T")

FAULTS: tuple[type[Exception], ...] = (
    AioRpcError,
    ApiException,
    QdrantException,
    ResponseHandlingException,
    ValueError,
)
"""What the client raises when the server is away, refuses, has too much to do, or answers nonsense."""
PURGE_SECONDS = 30.0


class QdrantServerStore:
    """One collection for all tenants; made on first use when it is missing."""

    def __init__(
        self, client: AsyncQdrantClient, *, collection: str, dimensions: Dimensions, timeout_seconds: float
    ) -> None:
        self._client = client
        self._collection = collection
        self._dimensions = dimensions
        self._timeout_seconds = timeout_seconds
        self._dependency = Dependency("qdrant", faults=FAULTS)
        self._preparation: asyncio.Task[None] | None = None

    async def plausible(self, glance: Glance) -> list[Plausible]:
        """The entries of the partition whose sketches are most similar, best first."""
        found = await self._ask(
            lambda: self._client.query_points(
                self._collection,
                query=list(glance.sketch),
                using=SKETCH,
                query_filter=_partition(glance),
                score_threshold=glance.at_least,
                limit=glance.limit,
                with_payload=["question"],
                timeout=self._whole_seconds,
            )
        )
        return [Plausible(str(p.id), p.score, str((p.payload or {}).get("question", ""))) for p in found.points]

    async def nearest(self, near: Near) -> list[Match]:
        """The most similar entries of the partition, best first."""
        found = await self._ask(
            lambda: self._client.query_points(
                self._collection,
                query=list(near.vector),
                using=ACCURATE,
                query_filter=_partition(near),
                score_threshold=near.at_least,
                limit=near.limit,
                with_payload=list(ANSWERING),
                timeout=self._whole_seconds,
            )
        )
        return matches((str(point.id), point.score, point.payload) for point in found.points)

    async def put(self, entry: Entry) -> None:
        """Store an entry; returns when the server has written it."""
        vectors: Any = {ACCURATE: list(entry.vector), SKETCH: list(entry.sketch)}
        point = models.PointStruct(id=entry.entry_id, vector=vectors, payload=payload_of(entry))
        await self._ask(lambda: self._client.upsert(self._collection, [point], wait=True))

    async def forget(self, selection: Selection, *, dry_run: bool = False) -> int:
        """Remove the entries of a selection, or with `dry_run` only count them; returns how many."""
        condition = _selected(selection)
        return await self._count(condition) if dry_run else await self._remove(condition)

    async def reprice(self, worths: Mapping[str, float]) -> None:
        """Set what entries are worth, by id; those that are gone stay gone."""
        changes = [
            models.SetPayloadOperation(
                set_payload=models.SetPayload(
                    payload={WORTH: worth}, filter=models.Filter(must=[models.HasIdCondition(has_id=[entry_id])])
                )
            )
            for entry_id, worth in worths.items()
        ]
        await self._ask(lambda: self._client.batch_update_points(self._collection, changes, wait=True), PURGE_SECONDS)

    async def forget_cheapest(self, most: int, *, share: int) -> int:
        """Remove the entries worth least until at most `most` are left in all, first of tenants above their share."""
        held = await self._count(None)
        if held <= most:
            return 0
        going = surplus(await self._largest(held // share + 1), excess=held - most, share=share)
        return sum([await self._remove_cheapest(number, tenant_id) for tenant_id, number in going])

    async def _largest(self, tenants: int) -> dict[str, int]:
        """The tenants with most entries, so many of them, with how many they have."""
        counted = await self._ask(
            lambda: self._client.facet(self._collection, "tenant", limit=tenants, exact=True), PURGE_SECONDS
        )
        return {str(tenant.value): tenant.count for tenant in counted.hits}

    async def _remove_cheapest(self, number: int, tenant_id: str) -> int:
        """Of one tenant, or of all where none is named."""
        whose = models.Filter(must=[_equals("tenant", tenant_id)]) if tenant_id else None
        by_worth = models.OrderBy(key=WORTH)
        cheapest, _ = await self._ask(
            lambda: self._client.scroll(
                self._collection, scroll_filter=whose, limit=number, order_by=by_worth, with_payload=False
            ),
            PURGE_SECONDS,
        )
        await self._ask(
            lambda: self._client.delete(self._collection, [point.id for point in cheapest], wait=True), PURGE_SECONDS
        )
        return len(cheapest)

    async def forget_expired(self, now: float) -> int:
        """Remove entries expired by `now`; returns how many."""
        return await self._remove(models.Filter(must=[_expiry(models.Range(lte=now))]))

    @property
    def _whole_seconds(self) -> int:
        return math.ceil(self._timeout_seconds)

    async def _count(self, condition: models.Filter | None) -> int:
        counted = await self._ask(
            lambda: self._client.count(self._collection, count_filter=condition, exact=True), PURGE_SECONDS
        )
        return counted.count

    async def _remove(self, condition: models.Filter) -> int:
        count = await self._count(condition)
        if count:
            selector = models.FilterSelector(filter=condition)
            await self._ask(lambda: self._client.delete(self._collection, selector, wait=True), PURGE_SECONDS)
        return count

    async def close(self) -> None:
        """Stop what may still be under way."""
        if self._preparation is not None:
            self._preparation.cancel()
            await asyncio.wait([self._preparation])

    async def _ask(self, operation: Callable[[], Awaitable[T]], timeout_seconds: float | None = None) -> T:
        return await self._dependency.ask(
            lambda: self._once_prepared(operation), timeout_seconds=timeout_seconds or self._timeout_seconds
        )

    async def _once_prepared(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Its answer, once there is a collection; who cannot wait so long leaves the making of it under way."""
        preparation = self._preparation
        if preparation is None:
            preparation = self._preparation = asyncio.create_task(self._prepared_in_time())
            preparation.add_done_callback(self._note_failure)
        await asyncio.shield(preparation)
        try:
            return await operation()
        except AioRpcError as error:
            if error.code() is StatusCode.NOT_FOUND and self._preparation is preparation:
                self._preparation = None  # it went with the server's disk: who comes next makes another
            raise

    async def _prepared_in_time(self) -> None:
        async with asyncio.timeout(PURGE_SECONDS):
            await self._prepare()

    def _note_failure(self, preparation: asyncio.Task[None]) -> None:
        """What failed is tried again by who comes next; nobody may be waiting for it any more."""
        if preparation.cancelled() or preparation.exception() is not None:
            self._preparation = None

    async def _prepare(self) -> None:
        """Make the collection and its indexes, unless they are there."""
        if await self._client.collection_exists(self._collection):
            await self._check_dimensions()
        else:
            await self._client.create_collection(
                self._collection,
                vectors_config={
                    ACCURATE: models.VectorParams(size=self._dimensions.accurate, distance=models.Distance.COSINE),
                    SKETCH: models.VectorParams(
                        size=self._dimensions.sketch,
                        distance=models.Distance.COSINE,
                        quantization_config=models.ScalarQuantization(
                            scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
                        ),
                    ),
                },
            )
        await self._index()

    async def _index(self) -> None:
        """Make every index there is; what is there already stays."""
        tenant = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)
        await self._client.create_payload_index(self._collection, KEYWORDS[0], field_schema=tenant)
        for field in KEYWORDS[1:]:
            await self._client.create_payload_index(self._collection, field, models.PayloadSchemaType.KEYWORD)
        for field in NUMBERS:
            await self._client.create_payload_index(self._collection, field, models.PayloadSchemaType.FLOAT)

    async def _check_dimensions(self) -> None:
        held = (await self._client.get_collection(self._collection)).config.params.vectors
        sizes = {name: params.size for name, params in held.items()} if isinstance(held, dict) else held
        if sizes != {ACCURATE: self._dimensions.accurate, SKETCH: self._dimensions.sketch}:
            raise Unusable(
                f"collection {self._collection!r} holds vectors of {sizes}, this version wants {self._dimensions}: "
                "delete the collection or name another embedding model"
            )


def _partition(near: Near | Glance) -> models.Filter:
    unexpired = _expiry(models.Range(gt=near.now))
    conditions: list[Any] = [_equals("tenant", near.tenant_id), _equals("context", near.context), unexpired]
    if isinstance(near, Near) and near.among:
        conditions.append(models.HasIdCondition(has_id=list(near.among)))
    return models.Filter(must=conditions)


def _selected(selection: Selection) -> models.Filter:
    conditions: list[Any] = [_equals(field, wanted) for field, wanted in equal_fields(selection)]
    if selection.question_prefix:
        prefix = models.MatchPrefix(prefix=selection.question_prefix)
        conditions.append(models.FieldCondition(key="question", match=prefix))
    if selection.stored_until is not None:
        conditions.append(models.FieldCondition(key=STORED, range=models.Range(lte=selection.stored_until)))
    others_than = selection.sealed_by_others_than
    return models.Filter(must=conditions, must_not=[_equals(SEALED_BY, others_than)] if others_than else None)


def _equals(field: str, value: str) -> models.FieldCondition:
    return models.FieldCondition(key=field, match=models.MatchValue(value=value))


def _expiry(bounds: models.Range) -> models.FieldCondition:
    return models.FieldCondition(key=EXPIRY, range=bounds)


@asynccontextmanager
async def qdrant_server_store(
    url: str,
    *,
    api_key: str | None,
    collection: str,
    dimensions: Dimensions,
    timeout_seconds: float,
    grpc_port: int = 6334,
) -> AsyncIterator[QdrantServerStore]:
    """Open a store on the server at `url` for the block; the server need not be there yet."""
    client = AsyncQdrantClient(url, grpc_port=grpc_port, api_key=api_key, prefer_grpc=True, check_compatibility=False)
    store = QdrantServerStore(client, collection=collection, dimensions=dimensions, timeout_seconds=timeout_seconds)
    try:
        yield store
    finally:
        await store.close()
        await client.close()
