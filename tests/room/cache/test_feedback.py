"""What became of requests, what callers report of it, and the statistics of both."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

import grpc
import pytest

from llmmesh.cache.v1 import cache_pb2
from meshkit.errors import error_info, error_reason
from meshkit.identity import Identity, acting_as
from services.cache.use_records import use_records
from tests.support.cache_calls import SEMANTIC, answer, lookup, prompt, store
from tests.support.fix_redis import RedisProcess
from tests.support.scripted_embeddings import ScriptedEmbeddings
from tests.support.waiting import until

ASKED = "How do I reset my password?"
REWORDED = "How can I reset my password?"
RIVAL = Identity(tenant_id="rival", key_id="k2", roles=frozenset({"developer"}))


@pytest.fixture
def tenant() -> Identity:
    """A tenant no other test uses."""
    return Identity(tenant_id=f"t-{uuid4()}", key_id="k1", roles=frozenset({"developer"}))


def use(tenant: Identity, outcome: str = "exact", **fields: Any) -> cache_pb2.CacheUse:
    return cache_pb2.CacheUse(
        **{"tenant_id": tenant.tenant_id, "model": "small", "outcome": outcome, "request_id": str(uuid4()), **fields}
    )


async def hit(stub: Any, tenant: Identity, level: Any = SEMANTIC) -> str:
    """Store an answer, have it found, and record that; returns the request that got it."""
    await stub.StoreAnswer(store(prompt(ASKED), answer("Click.")))
    found = await stub.LookupAnswer(lookup(prompt(REWORDED if level == SEMANTIC else ASKED), level))
    recorded = use(
        tenant,
        "semantic" if level == SEMANTIC else "exact",
        entry_id=found.answer.entry_id,
        answered_request_id=found.answer.request_id,
        similarity=found.similarity,
    )
    await stub.RecordUses(cache_pb2.RecordUsesRequest(uses=[recorded]))
    return recorded.request_id


async def report(stub: Any, request_id: str, verdict: str = "wrong") -> Any:
    return await stub.ReportHit(cache_pb2.ReportHitRequest(request_id=request_id, verdict=verdict))


async def stats(stub: Any, **criteria: Any) -> list[Any]:
    return list((await stub.GetCacheStats(cache_pb2.GetCacheStatsRequest(**criteria))).models)


@pytest.fixture(autouse=True)
def _alike(embeddings: ScriptedEmbeddings) -> None:
    embeddings.alike(ASKED, REWORDED)


async def test_a_wrong_answer_is_removed_at_both_levels(stub: Any, tenant: Identity) -> None:
    with acting_as(tenant):
        reported = await report(stub, await hit(stub, tenant))
        assert (reported.exact_count, reported.semantic_count, reported.repeated) == (1, 1, False)
        assert not (await stub.LookupAnswer(lookup(prompt(ASKED)))).HasField("answer")
        assert not (await stub.LookupAnswer(lookup(prompt(REWORDED), SEMANTIC))).HasField("answer")


async def test_a_right_answer_stays(stub: Any, tenant: Identity) -> None:
    with acting_as(tenant):
        reported = await report(stub, await hit(stub, tenant), "right")
        assert (reported.exact_count, reported.semantic_count) == (0, 0)
        assert (await stub.LookupAnswer(lookup(prompt(ASKED)))).HasField("answer")


async def test_a_repeated_report_counts_once(stub: Any, tenant: Identity) -> None:
    with acting_as(tenant):
        request_id = await hit(stub, tenant)
        repeats = [(await report(stub, request_id)).repeated for _ in range(3)]
        (small,) = await stats(stub)
    assert repeats == [False, True, True]
    assert small.reported_wrong == 1


async def test_a_report_sent_again_leaves_the_answer_that_came_since(stub: Any, tenant: Identity) -> None:
    with acting_as(tenant):
        request_id = await hit(stub, tenant, level=1)
        await report(stub, request_id)
        await stub.StoreAnswer(store(prompt(ASKED), answer("Click twice.")))
        assert (await report(stub, request_id)).repeated
        assert (await stub.LookupAnswer(lookup(prompt(ASKED)))).answer.answer.text == "Click twice."


async def test_an_answer_given_before_it_was_stored_is_found_by_the_request_that_made_it(
    stub: Any, tenant: Identity
) -> None:
    with acting_as(tenant):
        shared = use(tenant, answered_request_id="leader")
        said = answer("Click.")
        said.request_id = "leader"
        await stub.StoreAnswer(store(prompt(ASKED), said))
        await stub.StoreAnswer(store(prompt("Another?")))
        await stub.RecordUses(cache_pb2.RecordUsesRequest(uses=[shared]))
        reported = await report(stub, shared.request_id)
    assert (reported.exact_count, reported.semantic_count) == (1, 1)


async def test_a_hit_of_another_tenant_cannot_be_reported(stub: Any, tenant: Identity) -> None:
    with acting_as(tenant):
        request_id = await hit(stub, tenant)
    with (
        acting_as(RIVAL),
        pytest.raises(grpc.aio.AioRpcError) as caught,
    ):
        await report(stub, request_id)
    assert error_reason(caught.value) == "RESOURCE_NOT_FOUND"
    with acting_as(tenant):
        assert (await stub.LookupAnswer(lookup(prompt(ASKED)))).HasField("answer")


async def test_statistics_tell_what_the_cache_did(stub: Any, tenant: Identity) -> None:
    saving = {"saved_micros": 1500, "currency_code": "RUB", "saved_time": timedelta(milliseconds=250)}
    uses = [
        *(use(tenant, "exact", answered_request_id="r", **saving) for _ in range(3)),
        *(use(tenant, "semantic", similarity=similarity, **saving) for similarity in (0.951, 0.957, 0.99)),
        *(use(tenant, "miss") for _ in range(2)),
        use(tenant, "unavailable"),
        use(tenant, "miss", model="large"),
    ]
    with acting_as(tenant):
        await stub.RecordUses(cache_pb2.RecordUsesRequest(uses=uses))
        large, small = await stats(stub)
        assert await stats(stub, model="large") == [large]
    assert (small.model, small.requests, small.exact_hits, small.semantic_hits) == ("small", 9, 3, 3)
    assert (small.misses, small.unavailable, small.hit_rate) == (2, 1, 6 / 9)
    assert [(band.at_least, band.count) for band in small.similarities] == [(0.95, 2), (0.99, 1)]
    assert [(money.currency_code, money.micros) for money in small.saved] == [("RUB", 9000)]
    assert small.saved_time.ToMilliseconds() == 1500
    assert (large.requests, large.hit_rate) == (1, 0)
    assert not small.HasField("false_hit_rate")


async def test_vetoes_of_the_verifier_are_counted(stub: Any, tenant: Identity, embeddings: ScriptedEmbeddings) -> None:
    embeddings.alike("How far is 5 km?", "How far is 6 km?")
    with acting_as(tenant):
        await stub.StoreAnswer(store(prompt("How far is 5 km?")))
        await stub.LookupAnswer(lookup(prompt("How far is 6 km?"), SEMANTIC))
        (small,) = await stats(stub)
    assert sum(small.vetoes.values()) == 1


async def test_the_false_hit_rate_comes_from_reports(stub: Any, tenant: Identity) -> None:
    with acting_as(tenant):
        for verdict in ("right", "right", "right", "wrong"):
            await report(stub, await hit(stub, tenant), verdict)
        await report(stub, await hit(stub, tenant, level=1), "wrong")
        (small,) = await stats(stub)
    assert (small.reported_right, small.reported_wrong, small.false_hit_rate) == (3, 1, 0.25)
    assert 0.7 < small.false_hit_rate_at_most < 0.8


async def bound(stub: Any, **criteria: Any) -> Any:
    return await stub.GetErrorBound(cache_pb2.GetErrorBoundRequest(**criteria))


async def test_the_bound_shows_what_it_rests_on(stub: Any, tenant: Identity) -> None:
    with acting_as(tenant):
        before = await bound(stub)
        await report(stub, await hit(stub, tenant), "wrong")
        after = await bound(stub)
    assert before.target == 0.01
    assert before.threshold > 0.5
    assert before.false_hit_rate <= before.false_hit_rate_at_most <= before.target
    assert (after.judged, after.reported_wrong) == (before.judged + 1, 1)
    assert after.threshold >= before.threshold
    assert after.false_hit_rate_at_most <= after.target


async def test_the_bound_of_another_tenant_needs_an_admin(stub: Any, tenant: Identity) -> None:
    with acting_as(tenant), pytest.raises(grpc.aio.AioRpcError) as caught:
        await bound(stub, tenant_id="rival")
    assert error_reason(caught.value) == "ROLE_MISSING"
    with acting_as(Identity(tenant_id="house", roles=frozenset({"admin"}))):
        assert (await bound(stub, tenant_id=tenant.tenant_id)).reported_wrong == 0


async def test_replicas_and_restarts_agree_on_the_evidence(
    configure: Any, serve: Any, stub: Any, tenant: Identity
) -> None:
    """What one replica was told another knows soon, and one that starts later too; both of them once."""

    async def known(replica: Any) -> bool:
        shown = await bound(replica)
        return bool((shown.reported_right, shown.reported_wrong) == (2, 1))

    with acting_as(tenant):
        async with serve(configure(evidence_seconds=0.05)) as other:
            for verdict in ("right", "right", "wrong"):
                await report(stub, await hit(stub, tenant), verdict)
            await until(lambda: known(other))
            assert await known(stub)
        async with serve(configure(evidence_seconds=0.05)) as restarted:
            await until(lambda: known(restarted))
            assert (await bound(restarted)).threshold == (await bound(stub)).threshold


async def test_an_entry_that_was_wrong_serves_no_more_at_that_certainty_in_any_replica(
    configure: Any, serve: Any, stub: Any, tenant: Identity
) -> None:
    """Stored again under the same name, it is as wrong as before."""

    async def refused(replica: Any) -> bool:
        return not (await replica.LookupAnswer(lookup(prompt(REWORDED), SEMANTIC))).HasField("answer")

    with acting_as(tenant):
        async with serve(configure(evidence_seconds=0.05)) as other:
            await report(stub, await hit(stub, tenant))
            for replica in (stub, other):
                await replica.StoreAnswer(store(prompt(ASKED), answer("Click.")))
            assert await refused(stub)
            await until(lambda: refused(other))


async def test_evidence_is_read_anew_from_a_redis_that_counts_from_one_again(redis_url: str, tenant: Identity) -> None:
    async with use_records(redis_url, timeout_seconds=2, kept_seconds=60) as records:
        for request_id in ("r1", "r2", "r2"):
            await records.first_report(tenant.tenant_id, request_id, evidence="wrong:180")
        latest, _ = await records.evidence_since(0)
        assert (await records.evidence_since(latest)) == (latest, {})
        again, reported = await records.evidence_since(latest + 1000)
    assert (again, reported[tenant.tenant_id].counts) == (latest, {"wrong:180": 2})


async def test_statistics_of_another_tenant_need_an_admin(stub: Any, tenant: Identity) -> None:
    with acting_as(tenant):
        await stub.RecordUses(cache_pb2.RecordUsesRequest(uses=[use(tenant)]))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stats(stub, tenant_id="rival")
        assert error_reason(caught.value) == "ROLE_MISSING"
    with acting_as(Identity(tenant_id="house", roles=frozenset({"admin"}))):
        assert [each.requests for each in await stats(stub, tenant_id=tenant.tenant_id)] == [1]


async def test_while_redis_is_away_reports_say_so_and_uses_are_lost(
    configure: Any, serve: Any, redis_process: RedisProcess, tenant: Identity
) -> None:
    async with serve(configure(redis_url=redis_process.url)) as stub:
        with acting_as(tenant):
            request_id = await hit(stub, tenant)
            redis_process.kill()
            await stub.RecordUses(cache_pb2.RecordUsesRequest(uses=[use(tenant)]))
            for call in (report(stub, request_id), stats(stub)):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call
                assert error_reason(caught.value) == "DEPENDENCY_UNAVAILABLE"
            redis_process.start()
            await until(lambda: _counts(stub))


async def _counts(stub: Any) -> bool:
    try:
        await stats(stub)
    except grpc.aio.AioRpcError:
        return False
    return True


@pytest.mark.parametrize(
    ("field", "method", "request_"),
    [
        ("request_id", "ReportHit", cache_pb2.ReportHitRequest(verdict="wrong")),
        ("verdict", "ReportHit", cache_pb2.ReportHitRequest(request_id="r", verdict="perhaps")),
        ("days", "GetCacheStats", cache_pb2.GetCacheStatsRequest(days=31)),
        ("uses[0]", "RecordUses", cache_pb2.RecordUsesRequest(uses=[cache_pb2.CacheUse(outcome="hit")])),
    ],
)
async def test_a_mistake_names_its_field(stub: Any, tenant: Identity, field: str, method: str, request_: Any) -> None:
    with acting_as(tenant), pytest.raises(grpc.aio.AioRpcError) as caught:
        await getattr(stub, method)(request_)
    info = error_info(caught.value)
    assert info
    assert info.metadata["field"] == field
