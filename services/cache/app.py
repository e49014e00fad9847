"""Puts the cache together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, cast

from llmmesh.audit.v1.audit_pb2_grpc import AuditServiceStub
from llmmesh.cache.v1.cache_pb2_grpc import add_CacheServiceServicer_to_server
from llmmesh.inference.v1.inference_pb2_grpc import InferenceServiceStub
from meshkit.background import in_background
from meshkit.client import connect
from meshkit.revocation import following_revocations
from meshkit.server import Mount, running
from services.cache.admission import Limits
from services.cache.alarms import Alarms
from services.cache.answers import AnswerCache
from services.cache.codec import Codec
from services.cache.config import CacheConfig
from services.cache.departures import Departures
from services.cache.embedding import Embedder
from services.cache.encryption import Cipher
from services.cache.errorbound import NEVER, ErrorBound
from services.cache.evidence import SharedEvidence
from services.cache.exact import ExactStore, exact_store
from services.cache.feedback import Feedback
from services.cache.scoring import Scorer
from services.cache.sealing import Seals, secret_in
from services.cache.semantic import SemanticCache, SemanticLimits
from services.cache.servicer import CacheServicer
from services.cache.statistics import Tally
from services.cache.sweep import Sweep
from services.cache.use_records import use_records
from services.cache.vectorstores.edge import edge_store
from services.cache.vectorstores.folder import remove_others
from services.cache.vectorstores.port import Dimensions, VectorStore
from services.cache.verification.verifier import Verifier, calibrated
from wordvectors import WordVectors

if TYPE_CHECKING:
    from llmmesh.audit.v1.audit_pb2_grpc import AuditServiceAsyncStub
    from llmmesh.inference.v1.inference_pb2_grpc import InferenceServiceAsyncStub


@asynccontextmanager
async def cache(config: CacheConfig) -> AsyncIterator[int]:
    """Run the cache; yields the port it listens on. It is ready before its stores are: until then they are misses."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        exact = await enter(
            exact_store(
                config.redis_url, pool_size=config.redis_pool_size, timeout_seconds=config.redis_timeout_seconds
            )
        )
        inference = await enter(connect(config.mesh_target, InferenceServiceStub))
        inference_stub = cast("InferenceServiceAsyncStub", inference)
        embedder = _embedder(config, inference_stub)
        await enter(in_background(embedder.serve_stores()))
        tally = Tally()
        bound = calibrated(target=config.error_target)
        verifier = Verifier()
        scorer = _scorer(config, inference_stub, verifier)
        semantic = _semantic(config, embedder, scorer, await enter(_vector_store(config)), verifier, bound, tally)
        audit = await enter(connect(config.mesh_target, AuditServiceStub))
        alarms = Alarms(cast("AuditServiceAsyncStub", audit))
        await enter(in_background(Sweep(semantic, every_seconds=config.sweep_seconds).run(), alarms.run()))
        answers = _answers(config, exact, semantic, alarms)
        records = await enter(
            use_records(
                config.redis_url, timeout_seconds=config.redis_timeout_seconds, kept_seconds=config.report_seconds
            )
        )
        feedback = Feedback(records, answers, tally, semantic)
        evidence = SharedEvidence(records, bound, every_seconds=config.evidence_seconds)
        departures = Departures(answers.forget)
        await enter(in_background(feedback.run(), evidence.run(), departures.run()))
        mount = Mount(add_CacheServiceServicer_to_server, CacheServicer(answers, feedback))
        revoked = await enter(following_revocations(config.mesh_target, departures.take))
        port = await enter(running([mount], config, room="cache", revoked=revoked))
        if bound.state("").threshold < NEVER:
            await enter(in_background(verifier.load()))
        yield port


def _answers(config: CacheConfig, exact: ExactStore, semantic: SemanticCache, alarms: Alarms) -> AnswerCache:
    seals = Seals(_secret(config))
    limits = Limits(
        ttl_seconds=config.answer_ttl_seconds,
        longest_ttl_seconds=config.longest_ttl_seconds,
        largest_answer_bytes=config.largest_answer_bytes,
        highest_temperature=config.highest_temperature,
    )
    return AnswerCache(
        exact,
        semantic,
        seals,
        Codec(seals, _cipher(config)),
        limits,
        alarm=alarms.tampered,
        clock=time.time,
        copy_seconds=config.copy_seconds,
    )


def _secret(config: CacheConfig) -> bytes:
    return config.sealing_key.get_secret_value().encode() or secret_in(config.qdrant_path)


def _cipher(config: CacheConfig) -> Cipher | None:
    key = config.encryption_key.get_secret_value()
    return Cipher(key.encode()) if key else None


def _embedder(config: CacheConfig, inference: InferenceServiceAsyncStub) -> Embedder:
    return Embedder(
        inference,
        model=config.embedding_model,
        dimensions=config.embedding_dimensions,
        timeout_seconds=config.embedding_timeout_seconds,
        kept=config.embeddings_kept,
        at_once=config.embeddings_at_once,
    )


def _scorer(config: CacheConfig, inference: InferenceServiceAsyncStub, verifier: Verifier) -> Scorer:
    return Scorer(
        inference,
        model=config.embedding_model,
        scorer=verifier.weighing.scorer,
        timeout_seconds=config.embedding_timeout_seconds,
        kept=config.embeddings_kept,
        at_once=config.embeddings_at_once,
    )


def _semantic(
    config: CacheConfig,
    embedder: Embedder,
    scorer: Scorer,
    store: VectorStore,
    verifier: Verifier,
    bound: ErrorBound,
    tally: Tally,
) -> SemanticCache:
    limits = SemanticLimits(
        plausible_similarity=config.plausible_similarity,
        similarity_threshold=config.similarity_threshold,
        candidates=config.candidates,
        longest_question_characters=config.longest_question_characters,
        most_entries=config.most_semantic_entries,
        tenant_share=max(1, int(config.most_semantic_entries * config.semantic_tenant_share)),
    )
    words = WordVectors.packaged()
    return SemanticCache(words, embedder, scorer, store, verifier, bound, limits, time.time, tally.vetoed)


@asynccontextmanager
async def _vector_store(config: CacheConfig) -> AsyncIterator[VectorStore]:
    """The Qdrant server when a URL is set, else the embedded store; vectors of different models never mix."""
    dimensions = Dimensions(accurate=config.embedding_dimensions, sketch=WordVectors.packaged().dimensions)
    name = f"{config.embedding_model}-{dimensions.accurate}-{dimensions.sketch}".replace("/", "_")
    if not config.qdrant_url:
        await asyncio.to_thread(remove_others, config.qdrant_path, name)
        async with edge_store(
            config.qdrant_path / name,
            dimensions=dimensions,
            timeout_seconds=config.vector_store_timeout_seconds,
        ) as embedded:
            yield embedded
        return
    # Imported here because the client takes 60 MB and two seconds that the embedded store does not need.
    from services.cache.vectorstores.qdrant_server import qdrant_server_store

    async with qdrant_server_store(
        config.qdrant_url,
        grpc_port=config.qdrant_grpc_port,
        api_key=config.qdrant_api_key.get_secret_value() or None,
        collection=f"llmmesh-answers-{name}",
        dimensions=dimensions,
        timeout_seconds=config.vector_store_timeout_seconds,
    ) as server:
        yield server
