"""Why a request goes where it goes."""

from __future__ import annotations

import pytest

from meshkit.egress import DataClass, Residency
from meshkit.errors import ModelNotFound
from services.router.constraints import Limits
from services.router.decision import Decider
from services.router.deployment import Capability
from services.router.egress import Egress
from services.router.experiments.trials import Trials
from services.router.explaining import Explainer, Explanation
from services.router.fleet import Fleet, Roster
from services.router.needs import Needs
from services.router.preferences import Caller, Source, StrategyName, StrategyTable
from services.router.ranking import Demand, Price
from services.router.rules import RuleBook
from services.router.strategies import strategies
from tests.support.routing_world import untaught

ALL = ("near", "cheap", "far", "small", "foreign")


async def never_released(fleet: Fleet) -> None:
    raise AssertionError("nothing replaces it")


@pytest.fixture
def explained(deployment):
    deployments = [
        deployment("near", region="russia", quality=0.9),
        deployment("cheap", region="russia"),
        deployment("far", region="global", data_classes=["public"], capabilities=[]),
        deployment("small", region="russia", context_tokens=10),
        deployment("foreign", region="russia"),
    ]
    prices = {"near": Price(2, 4), "cheap": Price(1, 2)}
    ways = strategies(0.5, lambda _: 0.25, untaught())
    decider = Decider(deployments, StrategyTable(), RuleBook([], deployments), ways, prices)
    fleet = Fleet(deployments, decider, Egress({}), Trials([], {}, decider))
    explainer = Explainer(
        Roster(fleet, never_released), lambda each: 7.0 if each.name == "cheap" else 0.0, lambda _: 0.25
    )

    def explain(*allowed: str, everything: bool = False, model: str = "m") -> Explanation:
        limits = Limits(frozenset(allowed), DataClass.INTERNAL, Residency.RUSSIA)
        needs = Needs(frozenset({Capability.TOOLS}), 100, 10)
        return explainer.explain(Demand(model, needs, limits, Caller()), everything=everything)

    return explain


def test_every_candidate_is_told_with_every_reason_and_those_asked_come_first(explained):
    explanation = explained(*ALL)
    assert (explanation.strategy, explanation.source) == (StrategyName.CHEAPEST, Source.DEFAULT)
    assert [(each.deployment.name, each.reasons) for each in explanation.candidates] == [
        ("cheap", ()),
        ("near", ()),
        ("foreign", ()),
        (
            "far",
            [
                "may not hold internal data",
                "processes data in region global, not allowed by residency russia",
                "cannot do tools",
            ],
        ),
        ("small", ["holds 10 tokens"]),
    ]


def test_the_score_and_its_parts_are_told(explained):
    first, second, *_ = explained(*ALL).candidates
    assert (first.score.cost, second.score.cost) == (1 * 100 + 2 * 10, 2 * 100 + 4 * 10)
    assert (first.score.value, first.score.first_token_seconds) == (-120, 0.25)


def test_one_left_alone_keeps_its_place_and_says_for_how_long(explained):
    first, second, *_ = explained(*ALL).candidates
    assert first.pause == "failed lately; left alone for another 7 s"
    assert second.pause == ""


def test_a_deployment_outside_the_policy_is_told_only_to_those_who_may_know_of_it(explained):
    def names(**how: bool) -> list[str]:
        return [each.deployment.name for each in explained("near", "small", **how).candidates]

    assert names() == ["near", "small"]
    assert names(everything=True) == ["near", "cheap", "far", "small", "foreign"]


def test_nobody_left_is_an_explanation_too(explained):
    assert [each.reasons for each in explained("small").candidates] == [["holds 10 tokens"]]
    assert explained().candidates == []


def test_an_unknown_model_is_an_error(explained):
    with pytest.raises(ModelNotFound):
        explained(*ALL, model="x")
