"""No request reaches a deployment its constraints forbid, whatever fails and however often it is tried.

What is allowed is said here once more, in other words than the router's.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmmesh.chat.v1 import chat_pb2
from meshkit.egress import Cargo, DataClass, Region, Residency
from meshkit.errors import EgressRefused, MeshError
from meshkit.identity import Identity
from services.router.breaker import BreakerPolicy
from services.router.constraints import Limits
from services.router.decision import Decider
from services.router.deployment import Capability, Deployment, Shadow
from services.router.egress import Egress
from services.router.endpoints import OpenAIDeployment
from services.router.experiments.plan import Experiment, PromptTemplate
from services.router.experiments.shadows import shadowed
from services.router.experiments.trials import Trials, versions
from services.router.failover import Failover
from services.router.fleet import Fleet, Roster
from services.router.latencies import FirstTokenTimes
from services.router.needs import Needs
from services.router.observing import Observation, ObservedRouter
from services.router.preferences import Caller, Hedge, StrategyName, StrategyTable, Tier
from services.router.providers.provider import AnswerEvent, Embedded, Ended, FailureKind, ProviderFailure
from services.router.ranking import Demand, Price
from services.router.routing import Router
from services.router.rules import Rule, RuleBook
from services.router.shadowing import Shadowing
from services.router.standing import Standings
from services.router.strategies import strategies
from tests.support.routing_world import untaught

CASES = 5000
QUICK = settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
MOST_DEPLOYMENTS, MOST_DEMANDS, MOST_CALLS = 5, 3, 8
SHADOW = "d4"
"""Gets copies alone."""

WITHIN = {
    "global": {"local", "russia", "eu", "global"},
    "russia": {"local", "russia"},
    "eu": {"local", "eu"},
}
ENDINGS = [None, "late", "late", "cut", *FailureKind]
"""How a call goes: well, well after a while in which another is asked beside it, or badly."""
LATE_STEPS = 8
"""Turns of the event loop that a late answer takes."""
HEDGED = StrategyTable(hedges={"m": Hedge(after_seconds=0)})
PAUSES = [0.0, 0.0, 4.0, 11.0, 400.0]
"""Seconds between two requests: breakers open for ten."""


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Iterator[None]:
    """Tens of thousands of scripted failures are not worth a line each."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


RULES = [
    Rule(name="pro keeps off d0", when="tenant.tier == 'pro'", forbid={"deployments": ["d0"]}),
    Rule(
        name="internal stays local",
        when="data_class == 'internal' && !request.embeds",
        require={"regions": ["local"]},
    ),
    Rule(
        name="long goes to d1",
        when="request.input_tokens > 50",
        prefer={"deployments": ["d1"]},
        strategy="quality",
    ),
    Rule(name="nobody can tell", when="1 / (request.max_output_tokens - 7) > 0", forbid={"regions": ["eu"]}),
]


ASKER = Identity("t", "key", request_id="r")
TEMPLATES = {"long": PromptTemplate(system="Mind your words. " * 12)}
TRIAL = Experiment.model_validate(
    {"name": "x", "model": "m", "variants": [
        {"name": "one", "deployments": ["d0"]},
        {"name": "other", "deployments": ["d1", "d2"], "prompt": "long"},
        {"name": "none", "prompt": "long"},
    ]}
)  # fmt: skip
VARIANTS = ["", "x/gone@0", *(version.name for version in versions(TRIAL, TEMPLATES))]


def overruled(deployment: Deployment, demand: Demand, rules: list[str]) -> bool:
    """Whether one of RULES leaves it out, in this test's own words."""
    internal_chat = demand.limits.data_class == "internal" and demand.model == "m"
    # Divided by zero, and a rule that restricts holds in doubt.
    untold = demand.needs.max_output_tokens == 7
    return (
        ("pro keeps off d0" in rules and demand.caller.tier == "pro" and deployment.name == "d0")
        or ("internal stays local" in rules and internal_chat and deployment.region != "local")
        or ("nobody can tell" in rules and untold and deployment.region == "eu")
    )


class Digits:
    """Reads choices off one number, which is quicker to draw than many small ones, and still shrinks."""

    def __init__(self, number: int) -> None:
        self._rest = number

    def below(self, base: int) -> int:
        """The next choice among so many."""
        self._rest, digit = divmod(self._rest, base)
        return digit

    def of(self, items):
        """One of the items."""
        return items[self.below(len(items))]

    def some(self, items):
        """Any of the items."""
        mask = self.below(2 ** len(items))
        return [item for place, item in enumerate(items) if mask >> place & 1]


def deployment_of(place: int, number: int) -> Deployment:
    """Made without being checked, which takes longer than all the rest: its parts are of the right types."""
    digits = Digits(number)
    name = f"d{place}"
    embeds = digits.below(3) == 0 and name != SHADOW
    return OpenAIDeployment.model_construct(
        adapter="openai",
        name=name,
        shadow=Shadow(share_percent=100) if name == SHADOW else None,
        provider="scripted",
        base_url="https://cloud.example/v1",
        model="m-2",
        serves="e" if embeds else "m",
        embeds=embeds,
        region=digits.of(list(Region)),
        data_classes=frozenset(digits.some(list(DataClass))),
        capabilities=frozenset(digits.some(list(Capability))),
        context_tokens=digits.of([50, 5000]),
        priority=1 + digits.below(2),
        weight=digits.below(3),
        quality=digits.below(5) / 4,
    )


def demand_of(number: int) -> tuple[Demand, float]:
    """A request, and the time that passes before it."""
    digits = Digits(number)
    embeds = digits.below(3) == 0
    limits = Limits(
        frozenset(digits.some([f"d{place}" for place in range(MOST_DEPLOYMENTS)])),
        digits.of(list(DataClass)),
        digits.of(list(Residency)),
    )
    caller = Caller("t", digits.of([None, *Tier]), digits.of([None, *StrategyName]))
    shadows = frozenset(digits.some([SHADOW]))
    pause, tokens = digits.of(PAUSES), digits.of([10, 100])
    if embeds:
        return Demand("e", Needs(frozenset(), tokens, 0, embeds=True), limits, caller, texts=("fox",)), pause
    needs = Needs(frozenset(digits.some(list(Capability))), tokens, digits.of([0, 7]))
    prompt = chat_pb2.ChatPrompt(model="m", variant=digits.of(VARIANTS))
    return Demand("m", needs, limits, caller, prompt=prompt, shadows=shadows), pause


def allowed(deployment: Deployment, demand: Demand, rules: list[str]) -> bool:
    """The law, as this test understands it."""
    limits, needs = demand.limits, demand.needs
    return (
        not overruled(deployment, demand, rules)
        and deployment.serves == demand.model
        and deployment.name in (demand.shadows if deployment.shadow else limits.deployments)
        and limits.data_class in deployment.data_classes
        and str(deployment.region) in WITHIN[str(limits.residency)]
        and set(needs.capabilities) <= set(deployment.capabilities)
        and deployment.context_tokens >= needs.least_context_tokens
    )


@dataclass
class Listening:
    """A provider that writes down who was asked, and goes as it is told."""

    deployment: Deployment
    world: World

    async def stream_chat(self, prompt: chat_pb2.ChatPrompt, cargo: Cargo) -> AsyncGenerator[AnswerEvent, None]:
        ending = await self._reached(cargo)
        if ending is not None and ending != "cut":
            raise ProviderFailure(ending, "scripted", retry_after_seconds=self.world.retry_after())
        yield chat_pb2.Delta(text="fox")
        if ending == "cut":
            raise ProviderFailure(FailureKind.UNAVAILABLE, "scripted")
        yield Ended(chat_pb2.FINISH_REASON_STOP, None)

    async def embed(self, texts: Sequence[str], cargo: Cargo) -> Embedded:
        ending = await self._reached(cargo)
        if ending is not None:
            kind = FailureKind.TIMEOUT if ending == "cut" else ending
            raise ProviderFailure(kind, "scripted", retry_after_seconds=self.world.retry_after())
        return Embedded([[1.0] for _ in texts], None)

    async def condition(self):
        raise AssertionError("nobody asks")

    async def _reached(self, cargo: Cargo) -> FailureKind | str | None:
        self.world.reached.append((self.deployment, cargo))
        ending = next(self.world.endings)
        if ending != "late":
            return ending
        for _ in range(LATE_STEPS):
            await asyncio.sleep(0)
        return None


@dataclass
class World:
    """One routes file, its providers and a clock."""

    deployments: list[Deployment]
    endings: itertools.cycle
    rules: list[Rule]
    now: float = 0.0
    reached: list[tuple[Deployment, Cargo]] = field(default_factory=list)

    def retry_after(self) -> float | None:
        """A provider asks for a pause now and then."""
        return 30.0 if len(self.reached) % 5 == 4 else None

    def router(self, decider: type[Decider] = Decider) -> tuple[Router, Shadowing]:
        chance = random.Random(7).random
        prices = {each.name: Price(place, place) for place, each in enumerate(self.deployments) if place % 3}
        times = FirstTokenTimes(lambda: self.now)
        ways = strategies(0.5, lambda each: chance() * times.expected(each), untaught())
        answering = [each for each in self.deployments if each.shadow is None]
        deciding = decider(answering, HEDGED, RuleBook(self.rules, self.deployments), ways, prices)
        egress = Egress({each.name: Listening(each, self) for each in self.deployments})
        trials = Trials([TRIAL], TEMPLATES, deciding)
        roster = Roster(Fleet(self.deployments, deciding, egress, trials, shadowed(self.deployments)), never_released)
        router = Router(
            roster,
            prices,
            Failover(Standings(BreakerPolicy(open_jitter=0), self.deployments), lambda: self.now),
            times,
        )
        return router, Shadowing(router, roster, Observation(prices), chance=lambda: 0.0)


async def never_released(fleet: Fleet) -> None:
    raise AssertionError("nothing replaces it")


async def ask(routing: tuple[Router, Shadowing], demand: Demand) -> MeshError | None:
    """Ask, read to the end, let the copies be sent, and tell how it failed."""
    router, shadowing = routing
    try:
        if demand.needs.embeds:
            await router.embed(demand)
            return None
        observed = ObservedRouter(router, Observation({}, begun=shadowing.copy))
        async with shadowing.open():
            async with aclosing(observed.stream_chat(demand, ASKER)) as events:
                async for _ in events:
                    pass
            for _ in range(LATE_STEPS):
                await asyncio.sleep(0)
    except MeshError as error:
        return error
    return None


def goes_of(number: int) -> list[FailureKind | str | None]:
    """How the next calls go."""
    digits = Digits(number)
    return [digits.of(ENDINGS) for _ in range(MOST_CALLS)]


# Few numbers to draw: drawing takes longer than routing does.
NUMBERS = st.integers(0, 2**40)
DEPLOYMENTS = st.tuples(*[NUMBERS] * MOST_DEPLOYMENTS).map(
    lambda numbers: [deployment_of(place, number) for place, number in enumerate(numbers)]
)
RULEBOOKS = st.integers(0, 2 ** len(RULES) - 1).map(lambda mask: Digits(mask).some(RULES))
DEMANDS = st.tuples(*[NUMBERS.map(demand_of)] * MOST_DEMANDS)
GOES = st.integers(0, len(ENDINGS) ** MOST_CALLS - 1).map(goes_of)


@pytest.mark.timeout(600)  # on a busy machine; alone it takes half a minute
@QUICK
@given(DEPLOYMENTS, RULEBOOKS, DEMANDS, GOES)
async def test_no_request_reaches_a_deployment_its_constraints_forbid(deployments, rules, demands, goes):
    world = World(deployments, itertools.cycle(goes), rules)
    routing, names = world.router(), [rule.name for rule in rules]
    for place, (demand, pause) in enumerate(demands):
        world.now += pause
        world.reached.clear()
        error = await ask(routing, demand)
        assert all(allowed(each, demand, names) for each, _ in world.reached)
        assert all(cargo == demand.limits.cargo for _, cargo in world.reached)
        assert not isinstance(error, EgressRefused), "the wall is there for when routing is wrong, and it was not"
        if place == 0:
            answering = [each for each in deployments if each.shadow is None]
            assert bool(world.reached) == any(allowed(each, demand, names) for each in answering)


class AtAnyPrice(Decider):
    """What must never be merged: routing that forgot every constraint."""

    def order(self, demand: Demand) -> list[Deployment]:
        """Everybody who has the model."""
        return list(self.serving(demand))


@settings(QUICK, max_examples=CASES // 10)
@given(DEPLOYMENTS, DEMANDS, GOES)
async def test_the_way_out_holds_when_routing_forgets_every_constraint(deployments, demands, goes):
    world = World(deployments, itertools.cycle(goes), [])
    routing = world.router(AtAnyPrice)
    for demand, pause in demands:
        world.now += pause
        world.reached.clear()
        error = await ask(routing, demand)
        assert all(permitted(each, demand) for each, _ in world.reached)
        if not any(permitted(each, demand) for each in deployments if each.shadow is None):
            assert error is not None


def permitted(deployment: Deployment, demand: Demand) -> bool:
    """The part of the law that is about data: what a deployment cannot do is no breach."""
    limits = demand.limits
    return (
        deployment.name in (demand.shadows if deployment.shadow else limits.deployments)
        and limits.data_class in deployment.data_classes
        and str(deployment.region) in WITHIN[str(limits.residency)]
    )
