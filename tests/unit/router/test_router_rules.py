"""What rules of the routes file do to a request."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY
from pydantic import ValidationError

from llmmesh.chat.v1 import chat_pb2
from meshkit.egress import DataClass, Residency
from meshkit.errors import ModelNotAllowed
from services.router.constraints import Limits
from services.router.decision import Decider
from services.router.deployment import Capability
from services.router.expressions import Condition, ConditionFailed
from services.router.needs import Needs
from services.router.preferences import Caller, Source, StrategyName, StrategyTable, Tier
from services.router.ranking import Demand
from services.router.rules import FACTS, Rule, RuleBook
from services.router.strategies import strategies
from tests.support.routing_world import untaught

ANY = frozenset({"near", "far", "ours"})


def demand(caller: Caller | None = None, tokens: int = 100, metadata: str = "") -> Demand:
    extra = {"metadata": metadata} if metadata else {}
    prompt = chat_pb2.ChatPrompt(options=chat_pb2.GenerationOptions(extra_json=extra))
    limits = Limits(ANY, DataClass.INTERNAL, Residency.GLOBAL)
    return Demand("m", Needs(frozenset({Capability.TOOLS}), tokens, 0), limits, caller or Caller(), prompt=prompt)


@pytest.fixture
def decider(deployment):
    deployments = [
        deployment("near", region="russia", provider="sber"),
        deployment("far", region="global", quality=0.9),
        deployment("ours", region="local", priority=2),
    ]

    def make(*rules: dict[str, object]) -> Decider:
        read = [Rule.model_validate({"name": f"rule {place}", **rule}) for place, rule in enumerate(rules)]
        ways = strategies(0.5, lambda _: 0.0, untaught())
        return Decider(deployments, StrategyTable(), RuleBook(read, deployments), ways, {})

    return make


def order(decider: Decider, asked: Demand) -> list[str]:
    return [each.name for each in decider.order(asked)]


def test_without_rules_nothing_changes(decider):
    assert order(decider(), demand()) == ["near", "far", "ours"]


def test_what_a_rule_forbids_is_left_out_while_its_condition_holds(decider):
    rule = {"when": "tenant.tier == 'free'", "forbid": {"providers": ["sber"], "deployments": ["ours"]}}
    assert order(decider(rule), demand(Caller(tier=Tier.FREE))) == ["far"]
    assert order(decider(rule), demand()) == ["near", "far", "ours"]


def test_what_a_rule_requires_leaves_the_others_out(decider):
    rule = {"when": "data_class == 'internal' && residency == 'global'", "require": {"regions": ["local", "russia"]}}
    assert order(decider(rule), demand()) == ["near", "ours"]


def test_what_a_rule_prefers_is_asked_first_whatever_the_priority(decider):
    rule = {"when": "'pilot' in tenant.tags", "prefer": {"deployments": ["ours"]}}
    assert order(decider(rule), demand(Caller(tags=("pilot",)))) == ["ours", "near", "far"]
    assert order(decider(rule), demand()) == ["near", "far", "ours"]


def test_the_first_rule_with_a_strategy_decides_before_the_tenant(decider):
    rules = [{"when": "request.input_tokens > 50", "strategy": "quality"}, {"when": "true", "strategy": "latency"}]
    asked = demand(Caller(strategy=StrategyName.CHEAPEST))
    made = decider(*rules)
    assert made.strategy(asked, made.ruling(asked)) == (StrategyName.QUALITY, Source.RULE)
    assert order(made, asked) == ["far", "near", "ours"]
    short = demand(tokens=10)
    assert made.strategy(short, made.ruling(short)) == (StrategyName.LATENCY, Source.RULE)


def test_nobody_left_is_an_error_that_names_the_rules(decider):
    rules = [
        {"when": "'tools' in request.needs", "forbid": {"regions": ["global", "russia"]}},
        {"when": "request.model.startsWith('m')", "require": {"deployments": ["near"]}},
    ]
    with pytest.raises(ModelNotAllowed) as caught:
        order(decider(*rules), demand())
    assert "near is forbidden by the rule 'rule 0'" in str(caught.value)
    assert "ours is not what the rule 'rule 1' requires" in str(caught.value)


def test_the_callers_own_metadata_can_be_asked_about(decider):
    rule = {"when": "'team' in request.metadata && request.metadata.team == 'law'", "require": {"regions": ["local"]}}
    made = decider(rule)
    assert order(made, demand(metadata='{"team": "law", "n": 5}')) == ["ours"]
    long = '{"team": "law", "x": "' + "y" * 20000 + '"}'
    for other in ('{"team": "sales"}', '{"n": 5}', "[1]", "", long):
        assert order(made, demand(metadata=other)) == ["near", "far", "ours"]


def test_a_condition_without_an_answer_applies_what_restricts_and_nothing_else(decider):
    def failures() -> float:
        return REGISTRY.get_sample_value("llmmesh_router_rule_failures_total", {"rule": "rule 0"}) or 0

    when, before = "request.metadata.team == 'law'", failures()
    assert order(decider({"when": when, "forbid": {"regions": ["global"]}}), demand()) == ["near", "ours"]
    assert order(decider({"when": when, "prefer": {"regions": ["local"]}}), demand()) == ["near", "far", "ours"]
    assert failures() == before + 2


@pytest.mark.parametrize("name", FACTS)
def test_every_variable_has_a_value(decider, name):
    assert order(decider({"when": f"{name} == {name}", "require": {"deployments": ["ours"]}}), demand()) == ["ours"]


@pytest.mark.parametrize(
    ("when", "complaint"),
    [
        ("tenant.tier ==", "Syntax error"),
        ("tenant.teir == 'free'", "undeclared reference to 'tenant.teir'"),
        ("tenant.tier == 5", "no matching overload for '_==_' applied to '(string, int)'"),
        ("tenant.tier", "must be true or false, but is of type STRING"),
        ("request.input_tokens > '5'", "no matching overload"),
    ],
)
def test_a_condition_that_cannot_be_is_refused_with_its_place(when, complaint):
    with pytest.raises(ValidationError, match="when") as caught:
        Rule.model_validate({"name": "r", "when": when, "strategy": "quality"})
    assert complaint in str(caught.value)


def test_a_condition_without_an_answer_says_so():
    with pytest.raises(ConditionFailed, match="divide by zero"):
        Condition("10 / request.input_tokens > 1").holds({"request.input_tokens": 0})
