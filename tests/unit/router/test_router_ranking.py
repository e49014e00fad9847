"""In what order deployments are asked."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from meshkit.egress import DataClass, Residency
from services.router.constraints import Limits
from services.router.latencies import FRESH_SECONDS, FirstTokenTimes
from services.router.needs import Needs
from services.router.preferences import Caller, Source, StrategyName, StrategyTable, Tier
from services.router.ranking import Demand, Price, Shortlist, cheapest_first, ranked
from services.router.strategies import Balanced, Cheapest, Latency, Quality, Weighted, strategies
from tests.support.routing_world import untaught

LIMITS = Limits(frozenset(), DataClass.PUBLIC, Residency.GLOBAL)


def demand(input_tokens: int = 3, output_tokens: int = 1, **changes: object) -> Demand:
    return Demand("m", Needs(frozenset(), input_tokens, output_tokens, **changes), LIMITS, Caller())


def order(strategy, deployments, prices=None, asked: Demand | None = None) -> list[str]:
    ranking = ranked(strategy, asked or demand(), Shortlist.of(deployments), prices or {})
    return [each.name for each in ranking.deployments()]


def test_the_cheapest_comes_first_and_the_unpriced_last_in_file_order(deployment):
    deployments = [deployment(name) for name in ("unpriced", "dear", "another", "cheap")]
    prices = {"dear": Price(300, 900), "cheap": Price(0, 0)}
    assert order(Cheapest(), deployments, prices) == ["cheap", "dear", "unpriced", "another"]
    assert [each.name for each in cheapest_first(deployments, prices)] == ["cheap", "dear", "unpriced", "another"]


def test_equal_prices_keep_the_order_of_the_file(deployment):
    names = ["b", "a", "c"]
    assert order(Cheapest(), [deployment(name) for name in names], dict.fromkeys(names, Price(1, 1))) == names


def test_the_mix_of_tokens_decides_who_is_cheaper(deployment):
    deployments = [deployment("writer"), deployment("reader")]
    prices = {"reader": Price(1, 100), "writer": Price(10, 20)}
    assert order(Cheapest(), deployments, prices, demand(1000, 1))[0] == "reader"
    assert order(Cheapest(), deployments, prices, demand(10, 1000))[0] == "writer"


def test_embedding_costs_what_is_read(deployment):
    deployments = [deployment("writer"), deployment("reader")]
    prices = {"reader": Price(1, 100), "writer": Price(2, 0)}
    assert order(Cheapest(), deployments, prices, demand(1, 0, embeds=True))[0] == "reader"


def test_a_priority_stands_before_any_score(deployment):
    deployments = [deployment("later", priority=2), deployment("first", priority=1), deployment("last", priority=3)]
    prices = {"later": Price(1, 1), "first": Price(9, 9), "last": Price(0, 0)}
    for strategy in strategies(0.5, lambda each: float(len(each.name)), untaught()).values():
        assert order(strategy, deployments, prices) == ["first", "later", "last"]


def test_the_best_comes_first_and_the_cheaper_of_equals(deployment):
    deployments = [deployment("good", quality=0.8), deployment("cheap", quality=0.8), deployment("best", quality=0.9)]
    assert order(Quality(), deployments, {"good": Price(5, 5), "cheap": Price(1, 1)}) == ["best", "cheap", "good"]


def test_balanced_weighs_quality_against_cost(deployment):
    deployments = [deployment("dear", quality=0.9), deployment("cheap", quality=0.6), deployment("poor", quality=0.1)]
    prices = {"dear": Price(100, 100), "cheap": Price(20, 20), "poor": Price(10, 10)}
    assert order(Balanced(0.5), deployments, prices) == ["cheap", "poor", "dear"]
    assert order(Balanced(0.9), deployments, prices)[0] == "dear"
    assert order(Balanced(0.0), deployments, prices) == ["poor", "cheap", "dear"]


def test_balanced_takes_what_has_no_price_for_the_dearest(deployment):
    deployments = [deployment("unpriced"), deployment("dear"), deployment("cheap")]
    prices = {"dear": Price(100, 100), "cheap": Price(1, 1)}
    ranking = ranked(Balanced(0.5), demand(), Shortlist.of(deployments), prices)
    scores = {each.name: score for each, score in zip(ranking.candidates, ranking.scores, strict=True)}
    assert scores["unpriced"] == scores["dear"] < scores["cheap"]
    assert order(Balanced(0.5), deployments) == ["unpriced", "dear", "cheap"]


def test_where_everything_is_free_balanced_goes_by_quality(deployment):
    deployments = [deployment("poor", quality=0.1), deployment("good", quality=0.9)]
    assert order(Balanced(0.5), deployments, dict.fromkeys(["poor", "good"], Price(0, 0))) == ["good", "poor"]


def test_the_fastest_comes_first(deployment):
    seconds = {"slow": 2.0, "fast": 0.1}
    deployments = [deployment("slow"), deployment("fast")]
    assert order(Latency(lambda each: seconds[each.name]), deployments) == ["fast", "slow"]


def test_weights_are_kept_in_the_long_run_and_a_weight_of_none_comes_last(deployment):
    deployments = [deployment("spare", weight=0), deployment("three", weight=3), deployment("one", weight=1)]
    chance = Weighted(random.Random(7).random)
    orders = [order(chance, deployments) for _ in range(4000)]
    first = Counter(each[0] for each in orders)
    assert first["three"] == pytest.approx(3000, abs=120)
    assert {each[-1] for each in orders} == {"spare"}


def test_times_are_the_moving_mean_and_what_is_old_is_forgotten(deployment):
    now = 0.0
    times = FirstTokenTimes(clock=lambda: now)
    quick, unknown = deployment("quick", first_token_seconds=0.7), deployment("unknown")
    assert (times.expected(quick), times.expected(unknown)) == (0.7, 0.0)
    times.note(quick, 1.0)
    times.note(quick, 2.0)
    assert times.expected(quick) == pytest.approx(1.2)
    now = FRESH_SECONDS + 1
    assert times.expected(quick) == 0.7


def test_the_tenants_own_strategy_goes_before_the_models_and_that_before_the_tiers():
    table = StrategyTable(models={"m": StrategyName.LATENCY}, tiers={Tier.FREE: StrategyName.WEIGHTED})
    free, own = Caller(tier=Tier.FREE), Caller(tier=Tier.FREE, strategy=StrategyName.QUALITY)
    assert table.chosen("m", own) == (StrategyName.QUALITY, Source.TENANT)
    assert table.chosen("m", free) == (StrategyName.LATENCY, Source.MODEL)
    assert table.chosen("other", free) == (StrategyName.WEIGHTED, Source.TIER)
    assert table.chosen("other", Caller()) == (StrategyName.CHEAPEST, Source.DEFAULT)


@pytest.mark.parametrize(
    ("tier", "strategy"),
    [
        (Tier.FREE, StrategyName.CHEAPEST),
        (Tier.PRO, StrategyName.BALANCED),
        (Tier.ENTERPRISE, StrategyName.QUALITY),
    ],
)
def test_a_tier_the_file_says_nothing_about_has_a_strategy(tier, strategy):
    assert StrategyTable().chosen("m", Caller(tier=tier)) == (strategy, Source.TIER)


def test_the_learned_pick_is_one_that_can_come_first_and_its_chance_is_known(deployment):
    learned, asked = untaught(), demand()
    deployments = [deployment("late", priority=2), deployment("a"), deployment("b"), deployment("barred")]
    ranking = ranked(learned, asked, Shortlist.of(deployments, preferred=("a", "b")), {})
    first = ranking.deployments()[0].name
    gamble = learned.stakes[asked].gamble
    assert gamble.first == first
    assert gamble.chances == {"a": 0.5, "b": 0.5}
    assert learned.stakes.get(demand()) is None
