"""The bandit: its chances, its regressions, and that it beats cheapest-first in a world where the truth is known."""

from __future__ import annotations

import random
from collections import Counter
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.feedback import Answer, OwnAnswers
from services.router.learned.arm import Arm
from services.router.learned.bandit import Bandit, Learning, chances
from services.router.learned.context import indices
from services.router.learned.estimation import doubly_robust, fitted, inverse_propensity
from services.router.learned.evidence import Evidence
from services.router.learned.replay import report
from services.router.learned.rewards import Outcome, Worth, quality_of
from tests.support.routing_world import CHEAPEST, NAMES, RATED_SHARE, World, lived, oracle, rewards

CODE, TALK = indices(["always", "kind:code"]), indices(["always", "kind:other"])
GOOD, BAD = (1.0, 0.1, 0.1), (0.0, 1.0, 0.1)


def bandit(seed=1, **changes):
    return Bandit(Learning(**changes), random.Random(seed))


@given(st.dictionaries(st.text(min_size=1), st.floats(-1, 1), min_size=1, max_size=20), st.floats(0, 1e6))
def test_chances_are_probabilities_and_the_best_has_the_greatest(expected, gamma):
    odds = chances(expected, gamma)
    assert sum(odds.values()) == pytest.approx(1)
    assert all(chance > 0 for chance in odds.values())
    best = max(expected, key=expected.__getitem__)
    assert odds[best] == pytest.approx(max(odds.values()))


def test_chances_are_those_of_the_formula():
    assert chances({"a": 0.9, "b": 0.4}, 10.0) == pytest.approx({"a": 1 - 1 / 7, "b": 1 / 7})


def test_who_knows_nothing_chooses_evenly_and_as_often_as_it_says():
    taught = bandit()
    firsts = Counter(taught.choose(["a", "b"], CODE).first for _ in range(2000))
    assert taught.choose(["a", "b"], CODE).chances == pytest.approx({"a": 0.5, "b": 0.5})
    assert 900 < firsts["a"] < 1100


def test_it_learns_who_is_good_at_what():
    taught = bandit()
    for _ in range(50):
        for name, context, measured in (("a", CODE, GOOD), ("b", CODE, BAD), ("a", TALK, BAD), ("b", TALK, GOOD)):
            taught.learn(name, context, measured, 0.0)
    taught.fit()
    assert taught.expected("a", CODE) > taught.expected("b", CODE) + 0.3
    assert taught.expected("b", TALK) > taught.expected("a", TALK) + 0.3
    assert taught.choose(["a", "b"], CODE).chances["a"] > 0.98


def test_one_nobody_has_tried_is_expected_to_be_like_the_others():
    taught = bandit()
    for _ in range(100):
        taught.learn("a", CODE, GOOD, 0.0)
    taught.fit()
    assert taught.expected("new", CODE) == pytest.approx(taught.expected("a", CODE), abs=0.02)


def test_feedback_moves_the_quality_and_a_changed_mind_is_as_if_it_were_the_first():
    changed, straight = bandit(), bandit()
    changed.rate("a", CODE, quality_of(1), 0.0)
    changed.rerate("a", CODE, quality_of(-1) - quality_of(1), 0.0)
    straight.rate("a", CODE, quality_of(-1), 0.0)
    for each in (changed, straight):
        each.fit()
    assert changed.expected("a", CODE) == pytest.approx(straight.expected("a", CODE))
    assert straight.expected("a", CODE) < straight.expected("new", CODE)


def test_the_past_fades_by_its_half_life():
    evidence = Evidence.none(1)
    evidence.add(CODE, (1.0,))
    evidence.fade(10.0, half_life_seconds=10.0)
    assert evidence.count == pytest.approx(0.5)
    assert evidence.means[0] == pytest.approx(1.0)
    evidence.fade(5.0, half_life_seconds=10.0)
    assert evidence.count == pytest.approx(0.5)


def test_evidence_of_two_adds_up_to_what_one_would_have_seen():
    one, other, both = (Evidence.none(1) for _ in range(3))
    for number, evidence in enumerate([one, other, other]):
        for each in (evidence, both):
            each.add(CODE if number else TALK, (number / 2,))
    one.absorb(other)
    assert one.weights([0.0], 1.0) == pytest.approx(both.weights([0.0], 1.0))


def test_a_reward_is_won_by_success_and_quality_and_lost_by_time_and_money():
    worth = Worth(success=1, quality=1, slowness=0.5, cost=0.5, slow_seconds=10)
    best = worth.measured(Outcome(success=True, seconds=0.0), 100)
    slow_and_dear = worth.measured(Outcome(success=True, seconds=99.0, cost_micros=200), 100)
    assert worth.reward(best, 1.0) == pytest.approx(1.0)
    assert worth.reward(slow_and_dear, 1.0) == pytest.approx(0.5)
    assert worth.reward(best, 0.5) == pytest.approx(0.75)


def test_it_beats_cheapest_first_by_a_third_of_what_can_be_won():
    world = World(seed=3)
    story = lived(world, 2500, Learning())
    best, cheapest, learned = (
        fmean(rewards(world, story.contexts, firsts))
        for firsts in (oracle(world, story.contexts), [CHEAPEST] * 2500, story.firsts)
    )
    assert learned > cheapest + (best - cheapest) / 3


def test_the_log_tells_what_another_way_would_have_earned():
    world = World(seed=4)
    story = lived(world, 2500, Learning(exploration=0.2))
    for name in NAMES:
        true = fmean(world.logged_reward(name, each.context, RATED_SHARE) for each in story.log)
        weighted = inverse_propensity(story.log, lambda _, name=name: name)
        robust = doubly_robust(story.log, lambda _, name=name: name, fitted(story.log))
        assert weighted.mean == pytest.approx(true, abs=0.08)
        assert robust.mean == pytest.approx(true, abs=0.03)
        assert robust.high - robust.low < weighted.high - weighted.low


def test_a_log_is_told_a_line_for_each_deployment():
    lines = list(report(lived(World(seed=5), 200, Learning(exploration=0.2)).log))
    assert [line.split(":")[0] for line in lines[1:]] == sorted(NAMES)
    assert "doubly robust" in lines[1]
    assert list(report([])) == ["The log holds fewer than two choices."]


async def test_answers_that_can_be_judged_are_bounded_and_the_oldest_go_first():
    answers = OwnAnswers(most=2)
    for number in range(3):
        answers.remember(Answer("acme", f"r{number}", "a"))
    assert await answers.find("acme", "r0") is None
    assert (await answers.find("acme", "r2")).request_id == "r2"


def test_arms_read_back_as_they_were_written():
    arm = Arm()
    arm.outcomes.add(CODE, GOOD)
    arm.feedback.add(TALK, (1.0,))
    arm.fade(5.0, 10.0)
    again = Arm.decoded(arm.encoded())
    assert again.encoded() == arm.encoded()
    assert again.outcomes.as_of == 5.0
