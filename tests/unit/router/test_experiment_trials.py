"""A request as its variant has it: constraints first, one set of instructions, fair comparisons."""

from __future__ import annotations

import pytest

from llmmesh.chat.v1 import chat_pb2
from meshkit.identity import Identity
from services.router.decision import Decider
from services.router.experiments.plan import Experiment, PromptTemplate
from services.router.experiments.treatment import Use
from services.router.experiments.trials import GROUPS, Trials, versions
from services.router.needs import chat_needs
from services.router.preferences import Caller, StrategyTable
from services.router.ranking import Demand
from services.router.rules import Rule, RuleBook
from services.router.strategies import strategies
from tests.support.routing_world import untaught

ADA = Identity("acme", "key-1", request_id="r1")
SYSTEM, USER, DEVELOPER = chat_pb2.ROLE_SYSTEM, chat_pb2.ROLE_USER, chat_pb2.ROLE_DEVELOPER


def prompt(*said, variant="", **options):
    messages = [chat_pb2.ChatMessage(role=role, content=[chat_pb2.ContentPart(text=text)]) for role, text in said]
    return chat_pb2.ChatPrompt(
        model="m", messages=messages, variant=variant, options=chat_pb2.GenerationOptions(**options)
    )


def experiment(*variants, **changes):
    return Experiment.model_validate({"name": "x", "model": "m", "variants": variants, **changes})


A, B = {"name": "a", "deployments": ["one"]}, {"name": "b", "deployments": ["two"]}


@pytest.fixture
def world(deployment, limits):
    """Trials between two deployments, and a request put to one of the variants by its place."""

    class World:
        def __init__(self, *variants, rules=(), prompts=None, **of_two):
            self.experiment, self.prompts = experiment(*variants), prompts or {}
            deployments = [deployment("one"), deployment("two", **of_two)]
            self.decider = Decider(
                deployments,
                StrategyTable(),
                RuleBook([Rule.model_validate(each) for each in rules], deployments),
                strategies(0.5, lambda _: 0.1, untaught()),
                {},
            )
            self.trials = Trials([self.experiment], self.prompts, self.decider)
            self.names = [version.name for version in versions(self.experiment, self.prompts)]

        def demand(self, place, *said, **changes):
            asked = prompt(*(said or [(USER, "Hello")]), variant=self.names[place])
            allowed = limits(*changes.pop("allowed", ("one", "two")), **changes)
            return Demand("m", chat_needs(asked), allowed, Caller("acme"), prompt=asked)

        def treated(self, place, *said, **changes):
            return self.trials.treated(self.demand(place, *said, **changes), ADA)

    return World


def test_the_deployments_of_a_variant_are_asked_before_those_that_rules_prefer(world):
    prefer_one = {"name": "p", "when": "true", "prefer": {"deployments": ["one"]}}
    here = world(A, B, rules=[prefer_one])
    for place, order in enumerate([["one", "two"], ["two", "one"]]):
        treated = here.treated(place)
        assert treated.treatment.use is Use.APPLIED
        assert 0 <= treated.treatment.group < GROUPS
        assert [each.name for each in here.decider.order(treated)] == order


@pytest.mark.parametrize("asked", [0, 1])
def test_a_variant_that_constraints_forbid_is_never_used_and_neither_of_the_two_is_counted(world, asked):
    here = world(A, B, region="global", data_classes=["public"])
    for demand in (
        here.treated(asked, residency="russia", allowed=("one", "two")),
        here.treated(asked, data_class="confidential"),
        here.treated(asked, allowed=("one",)),
    ):
        assert demand.treatment.group is None
    barred = world(A, B, region="global", data_classes=["public"]).treated(1, allowed=("one",))
    assert barred.treatment.use is Use.BARRED
    assert barred.firsts == {"one"}, "the request falls to the other variant"


def test_a_rule_may_bar_a_variant(world):
    here = world(A, B, rules=[{"name": "f", "when": "true", "forbid": {"deployments": ["two"]}}])
    assert here.treated(1).treatment.use is Use.BARRED
    assert [each.name for each in here.decider.order(here.treated(1))] == ["one"]


def test_a_request_whom_no_variant_suits_is_routed_as_if_there_were_none(world):
    here = world(B, {"name": "c", "deployments": ["two"]})
    treated = here.treated(0, allowed=("one",))
    assert (treated.treatment.use, treated.treatment.group) == (Use.BARRED, None)
    assert [each.name for each in here.decider.order(treated)] == ["one"]


def test_a_template_too_long_for_every_context_bars_its_variant(world):
    prompts = {"long": PromptTemplate(system="word " * 2000)}
    here = world({"name": "plain"}, {"name": "long", "prompt": "long"}, prompts=prompts)
    treated = here.treated(1)
    assert (treated.treatment.use, treated.treatment.group) == (Use.BARRED, None)
    assert treated.prompt == prompt((USER, "Hello"))


def test_a_variant_of_weight_nought_keeps_nobody_from_being_counted(world):
    here = world(A, {**B, "weight": 0})
    assert here.treated(0, allowed=("one",)).treatment.group is not None


def test_a_variant_that_is_not_known_is_none(world):
    here = world(A, B)
    demand = here.demand(0)
    demand.prompt.variant = "x/a@older"
    treated = here.trials.treated(demand, ADA)
    assert (treated.treatment, treated.prompt.variant) == (None, "")
    assert here.trials.treated(Demand("m", demand.needs, demand.limits, demand.caller), ADA).treatment is None


@pytest.mark.parametrize(
    ("replaces", "said", "sent"),
    [
        (False, [(USER, "Hi")], [(SYSTEM, "Be brief."), (USER, "Hi")]),
        (False, [(SYSTEM, "You sell shoes."), (USER, "Hi")], [(SYSTEM, "Be brief.\n\nYou sell shoes."), (USER, "Hi")]),
        (False, [(DEVELOPER, "Shoes."), (USER, "Hi")], [(DEVELOPER, "Be brief.\n\nShoes."), (USER, "Hi")]),
        (True, [(SYSTEM, "You sell shoes."), (USER, "Hi")], [(SYSTEM, "Be brief."), (USER, "Hi")]),
        (True, [(USER, "Hi"), (DEVELOPER, "Late."), (USER, "?")], [(SYSTEM, "Be brief."), (USER, "Hi"), (USER, "?")]),
    ],
)
def test_a_template_becomes_part_of_one_set_of_instructions(world, replaces, said, sent):
    prompts = {"brief": PromptTemplate(system="Be brief.", replaces=replaces)}
    here = world({"name": "plain"}, {"name": "brief", "prompt": "brief"}, prompts=prompts)
    demand = here.demand(1, *said)
    treated = here.trials.treated(demand, ADA)
    assert treated.prompt == prompt(*sent)
    assert treated.needs.input_tokens > chat_needs(prompt(*said)).input_tokens
    assert demand.prompt == prompt(*said, variant=here.names[1]), "the caller's own prompt stays as it is"
    assert here.treated(0, *said).prompt == prompt(*said)


def test_a_version_is_another_when_anything_that_makes_an_answer_is():
    def names(prompts, *variants, **changes):
        return [version.name for version in versions(experiment(*variants, **changes), prompts)]

    brief, terse = {"p": PromptTemplate(system="Be brief.")}, {"p": PromptTemplate(system="Be terse.")}
    templated = {"name": "b", "prompt": "p"}
    same = names(brief, A, templated)
    assert names(brief, {**A, "weight": 9}, templated, share_percent=5, least_requests=500) == same
    assert names(terse, A, templated)[1] != same[1]
    assert names(brief, {**A, "deployments": ["two"]}, templated)[0] != same[0]
    assert names(brief, A, templated, name="y") != same


def test_requests_of_one_unit_fall_into_one_group(world):
    here = world(A, B)
    groups = {here.trials.treated(here.demand(0), Identity("acme", "key-1")).treatment.group for _ in range(5)}
    assert len(groups) == 1
    others = {here.trials.treated(here.demand(0), Identity("acme", f"key-{n}")).treatment.group for n in range(500)}
    assert len(others) > GROUPS * 0.9
