"""Learned routing against what is known to be best: `make bench-routing` prints tables and draws a plot.

Nothing is served: deployments of tests/support/routing_world.py answer by chance, from fixed seeds, so that every run
prints the same figures.
"""

from __future__ import annotations

import os
import timeit
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from statistics import fmean, stdev

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from llmmesh.chat.v1 import chat_pb2
from meshkit.egress import DataClass
from services.router.learned.bandit import Bandit, Learning
from services.router.learned.context import Asked, Context, context_of
from services.router.learned.estimation import Policy, doubly_robust, fitted, inverse_propensity
from services.router.needs import chat_needs
from tests.support.routing_world import CHEAPEST, NAMES, RATED_SHARE, Story, World, best_fixed, lived, oracle, rewards

SEEDS = range(5)
TURNS = 8_000
LAST = TURNS // 4
WORLDS = {
    "steady": (None, Learning()),
    "one breaks halfway": (TURNS // 2, Learning(half_life_seconds=TURNS / 2)),
}
VAR = Path(os.environ.get("LLMMESH_VAR", "var"))
console = Console(width=120)


@dataclass(frozen=True, slots=True)
class Run:
    """One seed's story, and the regret of each way of choosing, request by request."""

    world: World
    story: Story
    regret: dict[str, list[float]]


def main() -> None:
    """Run every world, print what is seen, draw it."""
    runs = {name: [run(seed, breaks, learning) for seed in SEEDS] for name, (breaks, learning) in WORLDS.items()}
    for name, told in runs.items():
        console.print(regret_table(name, told))
    console.print(estimates_table(runs["steady"][0]))
    console.print(speed_table())
    console.print(f"Plot: {drawn(runs)}")


def run(seed: int, breaks: int | None, learning: Learning) -> Run:
    """One bandit in one world, and the others on the same prompts."""
    world = World(seed, breaks_at=breaks)
    story = lived(world, TURNS, learning)
    best = list(rewards(world, story.contexts, oracle(world, story.contexts)))
    regret = {
        name: [most - got for most, got in zip(best, rewards(world, story.contexts, firsts), strict=True)]
        for name, firsts in ways(world, story).items()
    }
    return Run(world, story, regret)


def ways(world: World, story: Story) -> dict[str, list[str]]:
    """The ways of choosing that are compared."""
    turns = len(story.contexts)
    return {
        "learned": story.firsts,
        "best fixed, in hindsight": [best_fixed(world, story.contexts)] * turns,
        "cheapest first": [CHEAPEST] * turns,
        "random": [world.chance.choice(NAMES) for _ in range(turns)],
    }


def regret_table(name: str, runs: Sequence[Run]) -> Table:
    """Mean regret per request, over all of them and over the last quarter."""
    table = Table(title=f"Regret per request, {name}: {len(runs)} seeds, {TURNS} requests", title_justify="left")
    for heading in ("way of choosing", "all requests", "± over seeds", "last quarter"):
        table.add_column(heading, justify="left" if heading.startswith("way") else "right")
    for way in runs[0].regret:
        means = [fmean(each.regret[way]) for each in runs]
        late = fmean(fmean(each.regret[way][-LAST:]) for each in runs)
        table.add_row(way, f"{fmean(means):.4f}", f"{stdev(means):.4f}", f"{late:.4f}")
    return table


def estimates_table(told: Run) -> Table:
    """What the decision log says of ways that were not used, beside the truth."""
    table = Table(title="Mean reward of other ways, from the log of the first seed", title_justify="left")
    for heading in ("way of choosing", "true", "inverse propensity (95 %)", "doubly robust (95 %)"):
        table.add_column(heading, justify="left" if heading.startswith("way") else "right")
    model = fitted(told.story.log)
    for way, policy in policies().items():
        true = fmean(told.world.logged_reward(policy(each), each.context, RATED_SHARE) for each in told.story.log)
        weighted, robust = (inverse_propensity(told.story.log, policy), doubly_robust(told.story.log, policy, model))
        intervals = [f"{each.mean:.3f} ({each.low:.3f}..{each.high:.3f})" for each in (weighted, robust)]
        table.add_row(way, f"{true:.3f}", *intervals)
    return table


def policies() -> dict[str, Policy]:
    """Every deployment for everybody."""
    return {f"always {name}": lambda each, name=name: name for name in NAMES}


def speed_table() -> Table:
    """What a decision costs."""
    table = Table(title="Cost of a decision", title_justify="left")
    table.add_column("step")
    table.add_column("µs, best of 20", justify="right")
    prompt = chat_pb2.ChatPrompt(
        messages=[
            chat_pb2.ChatMessage(
                role=chat_pb2.ROLE_USER, content=[chat_pb2.ContentPart(text="What is the capital of France?")]
            )
        ]
    )
    asked = Asked(chat_needs(prompt), DataClass.PUBLIC)
    table.add_row("context of a short prompt", f"{best_us(lambda: context_of(prompt, asked)):.0f}")
    for size in (5, 100):
        bandit, names = taught(size)
        context = context_of(prompt, asked)
        table.add_row(f"choice among {size}", f"{best_us(lambda b=bandit, n=names, c=context: b.choose(n, c)):.0f}")
    return table


def taught(size: int) -> tuple[Bandit, list[str]]:
    """A bandit that knows something of `size` deployments."""
    world = World(0)
    bandit = Bandit(Learning(), world.chance)
    names = [f"deployment-{number}" for number in range(size)]
    for name in names:
        context: Context = world.prompt()
        bandit.learn(name, context, world.measured(NAMES[0], context, 0), 0.0)
    bandit.fit()
    return bandit, names


def best_us(step: Callable[[], object]) -> float:
    """Microseconds of one step, where nothing disturbs it."""
    return min(timeit.repeat(step, number=100, repeat=20)) / 100 * 1e6


def drawn(runs: dict[str, list[Run]]) -> Path:
    """Cumulative regret, one panel for each world."""
    figure = Figure(figsize=(12, 4.5), layout="tight")
    panels = figure.subplots(1, len(runs), sharey=True)
    for panel, (name, told) in zip(panels, runs.items(), strict=True):
        for way in told[0].regret:
            sums = [list(accumulate(each.regret[way])) for each in told]
            panel.plot([fmean(column) for column in zip(*sums, strict=True)], label=way)
            panel.fill_between(range(TURNS), list(map(min, *sums)), list(map(max, *sums)), alpha=0.15)
        panel.set(title=name, xlabel="requests")
        panel.legend()
    panels[0].set_ylabel("cumulative regret against the oracle")
    VAR.mkdir(parents=True, exist_ok=True)
    path = VAR / "bench-routing.png"
    figure.savefig(path, dpi=110)
    return path


if __name__ == "__main__":
    main()
