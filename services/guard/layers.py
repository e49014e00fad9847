"""The layers that judge a text by themselves, in the order of their cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from meshkit.policy_version import joined
from services.guard.cascade import Cascade, Scanner
from services.guard.classifier import ClassifierScanner, Doubts, Head
from services.guard.features import Concepts
from services.guard.kept import Kept
from services.guard.patterns import PatternScanner
from services.guard.policy import Policy, load_policy
from services.guard.rulebook import Rulebook
from services.guard.verdict import Action, Direction

PACKS = Path(__file__).parent / "packs"


@dataclass(frozen=True, slots=True)
class RuleLayers:
    """What judges by one set of rules, on either side."""

    policy: Policy
    cascades: Mapping[Direction, Cascade]
    classifier: ClassifierScanner

    def cascade(self, direction: Direction, own: Rulebook | None) -> Cascade:
        """What judges a text of one side, with a tenant's own rules if it has any."""
        cascade, scanner = self.cascades[direction], own.scanners.get(direction) if own else None
        return cascade.including(scanner) if scanner else cascade

    def version(self, own: Rulebook | None) -> str:
        """The version of all that judges."""
        return joined(self.policy.version, own.version if own else "")


def rule_layers(packs: Path, kept: Kept, names: Scanner, doubts: Doubts | None) -> RuleLayers:
    """Load a folder of packs; of what the classifier thinks, `doubts` are left to another layer.

    Raises:
        PacksInvalid: If a pack cannot be used.
    """
    policy = load_policy(packs, kept)
    patterns, classifier = attack_layers(policy, kept, doubts)
    cascades = {
        Direction.INPUT: Cascade([names, patterns, classifier]),
        Direction.OUTPUT: Cascade([policy.scanners[Direction.OUTPUT]]),
    }
    return RuleLayers(policy, cascades, classifier)


def attack_layers(policy: Policy, kept: Kept, doubts: Doubts | None = None) -> tuple[PatternScanner, ClassifierScanner]:
    """The layers that find attacks in prompts."""
    patterns = policy.scanners[Direction.INPUT]
    return patterns, ClassifierScanner(Head.load(), Concepts(kept.database), patterns.readable, doubts)


def default_layers(kept: Kept, packs: Path = PACKS) -> Sequence[Scanner]:
    """The same, with the packs that ship."""
    return attack_layers(load_policy(packs, kept), kept)


def refusals(layers: Sequence[Scanner], text: str) -> dict[str, bool]:
    """Which layer, by name, refuses a prompt."""
    return {layer.layer: any(found.action is Action.BLOCK for found in layer.scan(text)) for layer in layers}
