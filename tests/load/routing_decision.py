"""What it costs to decide who answers: constraints, rules and ranking over a hundred deployments, nothing else.

Alone: `python -m tests.load.routing_decision`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

from llmmesh.chat.v1 import chat_pb2
from meshkit.egress import DataClass, Region, Residency
from services.router.constraints import Limits
from services.router.decision import Decider
from services.router.deployment import Capability, Deployment
from services.router.endpoints import OpenAIDeployment
from services.router.needs import Needs
from services.router.preferences import Caller, StrategyTable, Tier
from services.router.ranking import Demand, Price
from services.router.rules import Rule, RuleBook
from services.router.strategies import strategies
from tests.support.routing_world import untaught

DEPLOYMENTS = 100
DECISIONS = 4000
RULES = [
    ("free tenants stay at home", "tenant.tier == 'free'", {"forbid": {"regions": ["global"]}}),
    ("internal data of some", "data_class == 'internal' && 'law' in tenant.tags", {"require": {"regions": ["local"]}}),
    ("long prompts by cost", "request.input_tokens > 8000 && !request.embeds", {"strategy": "cheapest"}),
    ("pilots", "tenant.id.startsWith('pilot-')", {"prefer": {"deployments": ["d7"]}}),
    ("no pictures abroad", "'vision' in request.needs", {"forbid": {"providers": ["p3"]}}),
]


@dataclass(frozen=True, slots=True)
class Decisions:
    """Microseconds a decision took."""

    p50: float
    p99: float
    new_p50: float
    """Of those whose facts no rule had seen before."""


def measured() -> Decisions:
    """Decide for many requests of many tenants, one after the other."""
    deployments = [_deployment(place) for place in range(DEPLOYMENTS)]
    prices = {each.name: Price(place % 17, place % 23) for place, each in enumerate(deployments)}
    rules = [Rule.model_validate({"name": name, "when": when, **does}) for name, when, does in RULES]
    ways = strategies(0.5, lambda each: each.first_token_seconds, untaught())
    decider = Decider(deployments, StrategyTable(), RuleBook(rules, deployments), ways, prices)
    demands = list(_demands(frozenset(each.name for each in deployments)))
    new = [_microseconds(decider, demand) for demand in demands]
    took = sorted([*new, *(_microseconds(decider, demand) for demand in demands)])
    return Decisions(statistics.median(took), took[int(len(took) * 0.99)], statistics.median(new))


def _microseconds(decider: Decider, demand: Demand) -> float:
    started = time.perf_counter()
    assert decider.order(demand)
    return (time.perf_counter() - started) * 1e6


def _deployment(place: int) -> Deployment:
    region = list(Region)[place % 4]
    return OpenAIDeployment.model_validate(
        {
            "adapter": "openai",
            "name": f"d{place}",
            "provider": f"p{place % 9}",
            "base_url": f"https://cloud{place}.example/v1",
            "model": "m",
            "serves": "m",
            "region": region,
            "data_classes": list(DataClass) if region is Region.LOCAL else ["public", "internal"],
            "capabilities": list(Capability)[: 1 + place % 3],
            "context_tokens": 4000 * (1 + place % 8),
            "quality": place % 11 / 10,
            "priority": 1 + place % 2,
            "weight": place % 5,
        }
    )


def _demands(names: frozenset[str]) -> Iterator[Demand]:
    """Requests that hardly ever are alike: the length of a prompt is part of what rules ask about."""
    prompt = chat_pb2.ChatPrompt(model="m")
    tiers = [None, *Tier]
    for number in range(DECISIONS // 2):
        limits = Limits(frozenset(list(names)), list(DataClass)[number % 2], list(Residency)[number % 3])
        needs = Needs(frozenset({Capability.TOOLS}) if number % 2 else frozenset(), number * 7 % 9000, number % 3 * 100)
        yield Demand("m", needs, limits, Caller(f"tenant-{number % 50}", tiers[number % 4], None, ("law",)), prompt)


def main() -> None:
    """Measure and print."""
    print(measured())


if __name__ == "__main__":
    main()
