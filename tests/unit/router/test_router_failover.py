"""Who is asked next, and what a caller hears when nobody answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from prometheus_client import REGISTRY

from meshkit.deadline import enter_deadline, time_left
from meshkit.egress import Residency
from meshkit.errors import ContextTooLong, EgressRefused, ModelWarming, ProviderRefused, ProviderUnavailable
from services.router.breaker import BreakerPolicy, BreakerState
from services.router.egress import Egress
from services.router.failover import Failover
from services.router.preferences import Hedge
from services.router.providers.provider import FailureKind, ProviderFailure
from services.router.standing import Standings

Attempt = Callable[[object], Awaitable[str]]


def failing(**failures: ProviderFailure | FailureKind) -> Attempt:
    """Deployments named here fail like that, all others answer with their name."""

    async def attempt(deployment) -> str:
        failure = failures.get(deployment.name)
        if isinstance(failure, FailureKind):
            raise ProviderFailure(failure, "scripted", status="0")
        if failure is not None:
            raise failure
        return deployment.name

    return attempt


async def drop(answer: str) -> None:
    """Nothing stays open of an answer that is a name."""


@pytest.fixture
def failover() -> Failover:
    return Failover(Standings(BreakerPolicy()), clock=lambda: 100.0)


@pytest.fixture
def ranked(deployment):
    return [deployment(name) for name in "abc"]


@pytest.mark.parametrize(
    "kind",
    [
        FailureKind.TIMEOUT,
        FailureKind.UNAVAILABLE,
        FailureKind.THROTTLED,
        FailureKind.CREDENTIAL,
        FailureKind.MALFORMED,
        FailureKind.NOT_FOUND,
        FailureKind.TOO_LONG,
        FailureKind.WARMING,
    ],
)
async def test_the_next_is_asked_when_the_fault_is_not_the_requests(failover, ranked, kind):
    answered = await failover.first_answer("m", ranked, failing(a=kind))
    assert answered.answer == "b"
    assert [(each.deployment.name, each.failure.kind) for each in answered.failed] == [("a", kind)]


async def test_nobody_else_is_asked_when_the_request_is_at_fault(failover, ranked):
    refusal = ProviderFailure(FailureKind.REFUSED, "for the log", status="400", public="param 'top_p'")
    with pytest.raises(ProviderRefused) as caught:
        await failover.first_answer("m", ranked, failing(a=refusal))
    assert caught.value.metadata == {"provider": "cloud", "status": "400", "attempts": "a=PROVIDER_REFUSED"}
    assert "param 'top_p'" in str(caught.value)
    assert "for the log" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (FailureKind.NOT_FOUND, ProviderRefused),
        (FailureKind.TOO_LONG, ContextTooLong),
        (FailureKind.WARMING, ModelWarming),
        (FailureKind.TIMEOUT, ProviderUnavailable),
    ],
)
async def test_when_all_fail_alike_the_error_says_how(failover, ranked, kind, error):
    with pytest.raises(error):
        await failover.first_answer("m", ranked, failing(a=kind, b=kind, c=kind))


async def test_when_all_fail_the_error_names_each_and_when_to_retry(failover, ranked):
    limit = ProviderFailure(FailureKind.THROTTLED, "x", retry_after_seconds=9)
    with pytest.raises(ProviderUnavailable) as caught:
        await failover.first_answer("m", ranked, failing(a=limit, b=limit, c=limit))
    assert "a: RATE_LIMITED; b: RATE_LIMITED; c: RATE_LIMITED" in str(caught.value)
    assert caught.value.retry_after_seconds == 9


async def test_one_left_alone_is_not_asked_and_named_when_nobody_answers(failover, ranked):
    for _ in range(3):
        await failover.first_answer("m", ranked, failing(a=FailureKind.TIMEOUT))
    asked = []

    async def attempt(deployment):
        asked.append(deployment.name)
        raise ProviderFailure(FailureKind.WARMING, "x")

    with pytest.raises(ProviderUnavailable, match="a: failed lately, left alone"):
        await failover.first_answer("m", ranked, attempt)
    assert asked == ["b", "c"]


async def test_a_fault_of_the_request_never_opens_the_breaker(failover, ranked):
    for _ in range(5):
        with pytest.raises(ProviderRefused):
            await failover.first_answer("m", ranked, failing(a=FailureKind.REFUSED))
    assert (await failover.first_answer("m", ranked, failing())).answer == "a"


@pytest.fixture
async def returning(failover, ranked) -> Failover:
    """Of which "a" has just come back."""
    for _ in range(3):
        await failover.first_answer("m", ranked, failing(a=FailureKind.TIMEOUT))
    failover.clock = lambda: 200.0
    for _ in range(3):
        (await failover.first_answer("m", ranked, failing())).attempt.completed()
    return failover


async def test_one_that_returns_is_asked_first_by_its_share_of_requests(returning, ranked):
    answers = [(await returning.first_answer("m", ranked, failing())).answer for _ in range(20)]
    assert answers == (["b"] * 9 + ["a"]) * 2


async def test_one_that_returns_is_fallen_back_on_beyond_its_share(returning, ranked):
    others_fail = failing(b=FailureKind.TIMEOUT, c=FailureKind.TIMEOUT)
    assert [(await returning.first_answer("m", ranked, others_fail)).answer for _ in range(5)] == ["a"] * 5


async def test_callers_that_leave_never_open_the_breaker(failover, ranked):
    for _ in range(5):
        async with (await failover.first_answer("m", ranked, failing())).attempt:
            pass
    assert failover.standings["a"].breaker.state(100) is BreakerState.CLOSED
    assert (await failover.first_answer("m", ranked, failing())).answer == "a"


@pytest.mark.parametrize("hedged", [False, True])
async def test_a_deadline_of_the_callers_that_ends_tells_nothing_and_nobody_else_is_asked(failover, ranked, hedged):
    asked = []

    async def keep_silent(deployment) -> str:
        asked.append(deployment.name)
        try:
            async with asyncio.timeout(time_left(at_most=60)):
                await asyncio.Event().wait()
        except TimeoutError:
            raise ProviderFailure(FailureKind.TIMEOUT, "took too long") from None
        return deployment.name

    async def ask():
        if hedged:
            return await failover.quickest_answer("m", ranked, keep_silent, Hedge(after_seconds=60), drop)
        return await failover.first_answer("m", ranked, keep_silent)

    for _ in range(3):
        enter_deadline(0.01)
        with pytest.raises(ProviderUnavailable):
            await ask()
    assert asked == ["a"] * 3
    assert failover.standings["a"].breaker.state(100) is BreakerState.CLOSED


async def test_an_answer_that_its_callers_deadline_ends_tells_nothing(failover, ranked):
    enter_deadline(0)
    for _ in range(3):
        answered = await failover.first_answer("m", ranked, failing())
        answered.attempt.broken(ProviderFailure(FailureKind.TIMEOUT, "took too long"))
    assert failover.standings["a"].breaker.state(100) is BreakerState.CLOSED


async def test_a_refused_request_takes_no_probe_of_one_that_is_not_asked(failover, ranked):
    for _ in range(3):
        await failover.first_answer("m", ranked[1:], failing(b=FailureKind.TIMEOUT))
    failover.clock = lambda: 200.0
    with pytest.raises(ProviderRefused):
        await failover.quickest_answer("m", ranked, failing(a=FailureKind.REFUSED), Hedge(after_seconds=60), drop)
    assert (await failover.first_answer("m", ranked[1:], failing())).answer == "b"


async def test_a_caller_that_leaves_a_probe_makes_room_for_the_next(failover, ranked):
    for _ in range(3):
        await failover.first_answer("m", ranked, failing(a=FailureKind.TIMEOUT))
    failover.clock = lambda: 200.0
    for _ in range(9):
        async with (await failover.first_answer("m", ranked, failing())).attempt as attempt:
            assert attempt.deployment.name == "a"


async def test_the_way_out_refuses_what_the_limits_forbid_whoever_asks(deployment, limits):
    egress = Egress({})
    far = deployment("far", region="global")
    with pytest.raises(EgressRefused, match="nothing was sent"):
        egress.stream_chat(far, None, limits("far", residency=Residency.RUSSIA))
    with pytest.raises(EgressRefused, match="nothing was sent"):
        await egress.embed(far, ["x"], limits("other"))


def test_refusals_of_a_deployment_are_shown_before_there_are_any():
    Egress({"unrefused": None})
    assert REGISTRY.get_sample_value("llmmesh_egress_refusals_total", {"destination": "unrefused"}) == 0


async def test_of_two_who_answer_at_once_one_is_discarded_and_its_call_is_over(failover, ranked):
    both, discarded = asyncio.Barrier(2), []

    async def ask(deployment) -> str:
        await both.wait()
        return deployment.name

    async def discard(answer: str) -> None:
        discarded.append(answer)

    hedge = Hedge(after_seconds=0.001)
    answered = await failover.quickest_answer("m", ranked, ask, hedge, discard)
    loser = "b" if answered.answer == "a" else "a"
    assert discarded in ([], [loser])
    assert failover.standings[loser].vitals.requests == 1
