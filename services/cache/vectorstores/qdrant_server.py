"""The semantic level in a Qdrant server or cluster."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from grpc.aio import AioRpcError
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException

from services.cache.dependency import Dependency, Unusable
from services.cache.vectorstores.matching import matches
from services.cache.vectorstores.payload import ANSWERING, EXPIRY, KEYWORDS, payload_of
from services.cache.vectorstores.port import Entry, Match, Near

T = TypeVar("T")

FAULTS: tuple[type[Exception], ...] = (AioRpcError, ApiException, ResponseHandlingException, ValueError)
"""What the client raises when the server is away, refuses, or answers nonsense."""
PURGE_SECONDS = 30.0


class QdrantServerStore:
    """One collection for all tenants; made on first use when it is missing."""

    def __init__(self, client: AsyncQdrantClient, *, collection: str, dimensions: int, timeout_seconds: float) -> None:
        self._client = client
        self._collection = collection
        self._dimensions = dimensions
        self._timeout_seconds = timeout_seconds
        self._dependency = Dependency("qdrant", faults=FAULTS)
        self._prepared = False

    async def nearest(self, near: Near) -> list[Match]:
        """The most similar entries of the partition, best first."""
        found = await self._ask(
            lambda: self._client.query_points(
                self._collection,
                query=list(near.vector),
                query_filter=_partition(near),
                score_threshold=near.at_least,
                limit=near.limit,
                with_payload=list(ANSWERING),
                timeout=self._whole_seconds,
            )
        )
        return matches((point.score, point.payload) for point in found.points)

    async def put(self, entry: Entry) -> None:
        """Store an entry; returns when the server has written it."""
        point = models.PointStruct(id=entry.entry_id, vector=list(entry.vector), payload=payload_of(entry))
        await self._ask(lambda: self._client.upsert(self._collection, [point], wait=True))

    async def forget(self, tenant_id: str, model: str = "") -> int:
        """Remove a tenant's entries, or those of one model; returns how many."""
        conditions: list[Any] = [_equals("tenant", tenant_id)]
        if model:
            conditions.append(_equals("model", model))
        return await self._remove(models.Filter(must=conditions))

    async def forget_expired(self, now: float) -> int:
        """Remove entries expired by `now`; returns how many."""
        return await self._remove(models.Filter(must=[_expiry(models.Range(lte=now))]))

    @property
    def _whole_seconds(self) -> int:
        return math.ceil(self._timeout_seconds)

    async def _remove(self, condition: models.Filter) -> int:
        counted = await self._ask(
            lambda: self._client.count(self._collection, count_filter=condition, exact=True), PURGE_SECONDS
        )
        if not counted.count:
            return 0
        selector = models.FilterSelector(filter=condition)
        await self._ask(lambda: self._client.delete(self._collection, selector, wait=True), PURGE_SECONDS)
        return counted.count

    async def _ask(self, operation: Callable[[], Awaitable[T]], timeout_seconds: float | None = None) -> T:
        if not self._prepared:
            await self._dependency.ask(self._prepare, timeout_seconds=PURGE_SECONDS)
            self._prepared = True
        return await self._dependency.ask(operation, timeout_seconds=timeout_seconds or self._timeout_seconds)

    async def _prepare(self) -> None:
        """Make the collection and its indexes, unless they are there."""
        if await self._client.collection_exists(self._collection):
            await self._check_dimensions()
            return
        await self._client.create_collection(
            self._collection,
            vectors_config=models.VectorParams(size=self._dimensions, distance=models.Distance.COSINE),
        )
        tenant = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)
        await self._client.create_payload_index(self._collection, KEYWORDS[0], field_schema=tenant)
        for field in KEYWORDS[1:]:
            await self._client.create_payload_index(self._collection, field, models.PayloadSchemaType.KEYWORD)
        await self._client.create_payload_index(self._collection, EXPIRY, models.PayloadSchemaType.FLOAT)

    async def _check_dimensions(self) -> None:
        held = (await self._client.get_collection(self._collection)).config.params.vectors
        if isinstance(held, models.VectorParams) and held.size != self._dimensions:
            raise Unusable(
                f"collection {self._collection!r} holds vectors of {held.size} numbers, the embedding model "
                f"makes {self._dimensions}: delete the collection or name another embedding model"
            )


def _partition(near: Near) -> models.Filter:
    unexpired = _expiry(models.Range(gt=near.now))
    return models.Filter(must=[_equals("tenant", near.tenant_id), _equals("context", near.context), unexpired])


def _equals(field: str, value: str) -> models.FieldCondition:
    return models.FieldCondition(key=field, match=models.MatchValue(value=value))


def _expiry(bounds: models.Range) -> models.FieldCondition:
    return models.FieldCondition(key=EXPIRY, range=bounds)


@asynccontextmanager
async def qdrant_server_store(
    url: str, *, api_key: str | None, collection: str, dimensions: int, timeout_seconds: float
) -> AsyncIterator[QdrantServerStore]:
    """Open a store on the server at `url` for the block; the server need not be there yet."""
    client = AsyncQdrantClient(url, api_key=api_key, prefer_grpc=True, check_compatibility=False)
    try:
        yield QdrantServerStore(client, collection=collection, dimensions=dimensions, timeout_seconds=timeout_seconds)
    finally:
        await client.close()
