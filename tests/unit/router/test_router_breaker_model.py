"""Whatever calls, checks and other routers do, in whatever order, the breaker keeps its promises."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from services.router.breaker import LONGEST_RETRY_AFTER_SECONDS, Breaker, BreakerPolicy, BreakerState, Call

policies = st.builds(
    BreakerPolicy,
    # Whole numbers, whose sums are exact.
    failures_to_open=st.integers(1, 5),
    failure_percent_to_open=st.integers(1, 100),
    window_seconds=st.integers(2, 60),
    window_calls=st.integers(1, 20),
    open_seconds=st.integers(1, 60),
    open_jitter=st.sampled_from([0, 0.5]),
    successes_to_close=st.integers(1, 4),
    return_percents=st.sampled_from([(), (10,), (10, 50), (1, 20, 99)]),
    stage_seconds=st.integers(0, 30),
)


@dataclass(eq=False)
class Begun:
    """A call under way, and what the model knows of it."""

    call: Call
    opening: int
    is_probe: bool
    answered: bool = False


class AnyOrder(RuleBasedStateMachine):
    """The model knows what must never happen, and counts by itself what closing takes."""

    calls = Bundle("calls")

    @initialize(policy=policies, chance=st.sampled_from([0, 0.5, 1]))
    def made(self, policy: BreakerPolicy, chance: float) -> None:
        self.policy = policy
        self.breaker = Breaker(policy, chance=lambda: chance)
        self.now = 0.0
        self.promised_until = 0.0
        self.under_way: list[Begun] = []
        self.whole_answers_of_probes = 0
        self.failed_in_a_row = 0

    @rule(seconds=st.integers(0, 400))
    def time_passes(self, seconds: int) -> None:
        before = self.breaker.state(self.now)
        self.now += seconds
        after = self.breaker.state(self.now)
        assert after is before or before is BreakerState.OPEN, "time alone only ends an opening"

    @rule()
    def the_pause_ends(self) -> None:
        self.now = max(self.now, self.breaker.open_until)
        assert self.breaker.state(self.now) is not BreakerState.OPEN

    @rule(target=calls)
    def somebody_calls(self):
        begun = self._begin()
        return multiple() if begun is None else begun

    @rule(begun=calls)
    def a_first_token_comes(self, begun: Begun) -> None:
        if begun in self.under_way:
            begun.answered = True
            self.breaker.answered(begun.call)

    @rule(begun=consumes(calls))
    def an_answer_is_whole(self, begun: Begun) -> None:
        self._complete(begun)

    @rule(begun=consumes(calls), retry_after=st.none() | st.integers(0, 1000))
    def a_call_fails(self, begun: Begun, retry_after: int | None) -> None:
        self._fail(begun, retry_after)

    @rule(times=st.integers(1, 5))
    def several_fail_in_a_row(self, times: int) -> None:
        for _ in range(times):
            if begun := self._begin():
                self._fail(begun, None)

    @rule(times=st.integers(1, 5))
    def several_are_answered_in_a_row(self, times: int) -> None:
        for _ in range(times):
            if begun := self._begin():
                self._complete(begun)

    @rule(begun=consumes(calls))
    def a_caller_leaves(self, begun: Begun) -> None:
        before = self.breaker.state(self.now), self.breaker.openings, self.breaker.share_percent(self.now)
        self.under_way.remove(begun)
        self.breaker.abandoned(begun.call)
        assert (self.breaker.state(self.now), self.breaker.openings, self.breaker.share_percent(self.now)) == before

    @rule(healthy=st.booleans())
    def a_check_is_made(self, healthy: bool) -> None:
        openings = self.breaker.openings
        was_open = self.breaker.state(self.now) is BreakerState.OPEN
        self.breaker.checked(healthy=healthy, now=self.now)
        assert not (healthy and self.breaker.openings > openings)
        assert not was_open or self.breaker.state(self.now) is BreakerState.OPEN, "no check closes it"
        self._note_opening(openings)

    @rule(seconds=st.integers(-10, 1000))
    def another_router_opens(self, seconds: float) -> None:
        openings = self.breaker.openings
        self.breaker.learn_opening(self.now + seconds, self.now)
        self._promise(min(seconds, LONGEST_RETRY_AFTER_SECONDS))
        self._note_opening(openings)

    @rule(seconds=st.integers(-10, 1000))
    def another_router_is_asked_to_wait(self, seconds: float) -> None:
        self.breaker.learn_wait(self.now + seconds, self.now)
        self._promise(min(seconds, LONGEST_RETRY_AFTER_SECONDS))

    @rule(ago=st.integers(0, 100))
    def another_router_closes(self, ago: float) -> None:
        self.breaker.learn_return(self.now - ago, self.now)

    @rule(requests=st.integers(1, 300))
    def requests_are_ranked(self, requests: int) -> None:
        share = self.breaker.share_percent(self.now)
        if share == 0:
            return
        led = sum(self.breaker.leads() for _ in range(requests))
        assert abs(led - requests * share / 100) <= 1

    @invariant()
    def an_opening_is_bounded(self) -> None:
        assert self.breaker.seconds_left(self.now) <= LONGEST_RETRY_AFTER_SECONDS

    @invariant()
    def nobody_is_let_through_sooner_than_promised(self) -> None:
        assert self.breaker.open_until >= self.promised_until

    @invariant()
    def one_probe_at_most_is_silent_and_no_more_speak_than_are_needed(self) -> None:
        probes = [each for each in self.under_way if each.is_probe and each.opening == self.breaker.openings]
        if self.breaker.state(self.now) is BreakerState.HALF_OPEN:
            assert sum(not each.answered for each in probes) <= 1
            assert len(probes) + self.whole_answers_of_probes <= self.policy.successes_to_close

    @invariant()
    def the_share_fits_the_state(self) -> None:
        share = self.breaker.share_percent(self.now)
        match self.breaker.state(self.now):
            case BreakerState.CLOSED:
                assert share == 100
            case BreakerState.RETURNING:
                assert share in self.policy.return_percents
            case _:
                assert share == 0

    def teardown(self) -> None:
        """Once everybody has left and time has passed, a call gets through, and good answers bring all back."""
        for begun in self.under_way:
            self.breaker.abandoned(begun.call)
        for _ in range(16):
            self.now += LONGEST_RETRY_AFTER_SECONDS
            call = self.breaker.begin(self.now)
            assert call is not None
            self.breaker.completed(call, self.now)
        assert self.breaker.state(self.now) is BreakerState.CLOSED

    def _begin(self) -> Begun | None:
        state = self.breaker.state(self.now)
        call = self.breaker.begin(self.now)
        if call is None:
            assert state in (BreakerState.OPEN, BreakerState.HALF_OPEN)
            return None
        assert self.now >= self.promised_until
        assert state is not BreakerState.OPEN
        begun = Begun(call, self.breaker.openings, state is BreakerState.HALF_OPEN)
        self.under_way.append(begun)
        return begun

    def _complete(self, begun: Begun) -> None:
        was_half_open = self.breaker.half_open
        counts = begun.opening == self.breaker.openings
        self.under_way.remove(begun)
        self.breaker.answered(begun.call)
        self.breaker.completed(begun.call, self.now)
        self.whole_answers_of_probes += counts and begun.is_probe
        self.failed_in_a_row = 0 if counts else self.failed_in_a_row
        if was_half_open:
            closed = not self.breaker.half_open
            assert closed == (self.whole_answers_of_probes >= self.policy.successes_to_close)

    def _fail(self, begun: Begun, retry_after: int | None) -> None:
        was_half_open, openings = self.breaker.half_open, self.breaker.openings
        counts = begun.opening == openings
        self.under_way.remove(begun)
        self.breaker.failed(begun.call, self.now, retry_after)
        self.failed_in_a_row += counts
        self._promise(min(retry_after or 0, LONGEST_RETRY_AFTER_SECONDS))
        if counts and (was_half_open or self.failed_in_a_row >= self.policy.failures_to_open):
            assert self.breaker.openings == openings + 1
        if not counts:
            assert self.breaker.openings == openings
        if self.breaker.openings > openings:
            self._promise(self.policy.open_seconds)
        self._note_opening(openings)

    def _promise(self, seconds: float) -> None:
        self.promised_until = max(self.promised_until, self.now + seconds)

    def _note_opening(self, openings_before: int) -> None:
        if self.breaker.openings > openings_before:
            self.whole_answers_of_probes = self.failed_in_a_row = 0


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
