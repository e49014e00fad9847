"""How many attacks each layer catches and how many innocent prompts it refuses: tables and plots."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from matplotlib.axes import Axes


ALL = "all"
WIDTH, HEIGHT = 9, 4.5


class Case(Protocol):
    """A prompt whose nature is known."""

    @property
    def text(self) -> str:
        """The prompt."""

    @property
    def is_attack(self) -> bool:
        """Whether it ought to be refused."""

    @property
    def language(self) -> str:
        """Its language."""

    @property
    def family(self) -> str:
        """Kind of attack, or topic."""


@dataclass(slots=True)
class Confusion:
    """Counts of right and wrong."""

    caught: int = 0
    missed: int = 0
    refused: int = 0
    """Innocent and refused all the same."""
    passed: int = 0

    def add(self, *, is_attack: bool, blocked: bool) -> None:
        """Count one case."""
        field = ("caught" if blocked else "missed") if is_attack else ("refused" if blocked else "passed")
        setattr(self, field, getattr(self, field) + 1)

    @property
    def recall(self) -> float:
        """Share of the attacks that is caught."""
        return self.caught / max(1, self.caught + self.missed)

    @property
    def false_positives(self) -> float:
        """Share of the innocent that is refused."""
        return self.refused / max(1, self.refused + self.passed)


Key = tuple[str, str, str]
"""Layer, language, family; "all" stands for every one."""
Judge = Callable[[str], Mapping[str, bool]]
"""For a text, which layer refuses it."""


def confusions(cases: Iterable[Case], judge: Judge) -> dict[Key, Confusion]:
    """Count cases by layer, language and family, and over all of them."""
    counts: defaultdict[Key, Confusion] = defaultdict(Confusion)
    for case in cases:
        verdicts = judge(case.text)
        for layer, blocked in {**verdicts, ALL: any(verdicts.values())}.items():
            for language in (case.language, ALL):
                for family in (case.family, ALL):
                    counts[layer, language, family].add(is_attack=case.is_attack, blocked=blocked)
    return dict(counts)


def table(counts: Mapping[Key, Confusion]) -> str:
    """The counts as a Markdown table."""
    lines = ["| layer | language | family | caught | missed | recall | refused | passed | false positives |"]
    lines.append("|---|---|---|--:|--:|--:|--:|--:|--:|")
    for key in sorted(counts, key=lambda key: [each.replace(ALL, "") for each in key]):
        found = counts[key]
        attacks = f"{found.caught} | {found.missed} | {_share(found.caught, found.missed)}"
        innocent = f"{found.refused} | {found.passed} | {_share(found.refused, found.passed)}"
        lines.append(f"| {' | '.join(key)} | {attacks} | {innocent} |")
    return "\n".join(lines)


def plot(counts: Mapping[Key, Confusion], path: Path, title: str) -> None:
    """Draw recall by family and layer, and false positives by language, as a PNG; needs matplotlib."""
    from matplotlib.figure import Figure  # a tool for development: no service has it

    layers = sorted({layer for layer, _, _ in counts})
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[3, 1])
    families = sorted(family for layer, language, family in counts if layer == language == ALL)
    attacks = [family for family in families if counts[ALL, ALL, family].caught + counts[ALL, ALL, family].missed]
    _bars(left, attacks, layers, lambda layer, family: counts[layer, ALL, family].recall)
    left.set(title="attacks caught", ylim=(0, 1))
    languages = sorted({language for _, language, _ in counts})
    _bars(right, languages, layers, lambda layer, language: counts[layer, language, ALL].false_positives)
    right.set(title="innocent refused")
    left.legend(loc="lower left")
    figure.suptitle(title)
    figure.savefig(path, dpi=110)


def _bars(axes: Axes, groups: Sequence[str], layers: Sequence[str], height: Callable[[str, str], float]) -> None:
    width = 0.8 / max(1, len(layers))
    for number, layer in enumerate(layers):
        places = [place + number * width for place in range(len(groups))]
        axes.bar(places, [height(layer, group) for group in groups], width, label=layer)
    axes.set_xticks([place + 0.4 - width / 2 for place in range(len(groups))], groups, rotation=40, ha="right")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")


def _share(hits: int, misses: int) -> str:
    return f"{hits / (hits + misses):.1%}" if hits + misses else ""
