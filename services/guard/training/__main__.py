"""`python -m services.guard.training train|evaluate`: trains the classifier, or measures the layers that ship."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from services.guard.classifier import WEIGHTS, ClassifierScanner, Head
from services.guard.features import Concepts, Features, features
from services.guard.kept import Kept
from services.guard.layers import PACKS, default_layers, refusals
from services.guard.matching import compile_database
from services.guard.measuring import ALL, confusions, plot, table
from services.guard.policy import load_policy
from services.guard.training.logistic import fit
from services.guard.training.sets import Sample, load
from services.guard.verdict import Direction

FOLDS = 5
MOST_REFUSED, MOST_UNSURE = 0.03, 0.1
"""Shares of the innocent that the thresholds let be refused, or looked at by others, in cross-validation."""
LEAST_BLOCK = 0.45


def main() -> None:
    """Run one of the commands."""
    parser = argparse.ArgumentParser(prog="python -m services.guard.training", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train the classifier and write its weights")
    train.add_argument("--into", type=Path, default=WEIGHTS)
    evaluate = commands.add_parser("evaluate", help="measure the layers that ship; writes tables and plots")
    evaluate.add_argument("--into", type=Path, default=Path("var/eval-guard"))
    given = parser.parse_args()
    _train(given.into) if given.command == "train" else _evaluate(given.into)


def _train(path: Path) -> None:
    """Fit on all but the held-out part; thresholds from scores of texts that the scoring head has not seen."""
    reader = Reader()
    known = [sample for sample in load() if sample.part != "held_out"]
    innocent = sorted(reader.unseen_scores(known, lambda each: not each.is_attack))
    block_from = max(LEAST_BLOCK, _above(innocent, MOST_REFUSED))
    unsure_from = min(block_from, _above(innocent, MOST_UNSURE))
    head = reader.fitted(known)._replace(block_from=block_from, unsure_from=unsure_from)
    head.save(path)
    print(f"{path}: {len(known)} prompts; refuses from {head.block_from:.3f}, unsure from {head.unsure_from:.3f}")


def _evaluate(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    layers = default_layers(Kept(None))
    samples = load()
    parts = {
        "known": [each for each in samples if each.part != "held_out"],
        "held-out": [each for each in samples if each.part == "held_out"],
    }
    for part, cases in parts.items():
        counts = confusions(cases, lambda text: refusals(layers, text))
        (folder / f"{part}.md").write_text(table(counts) + "\n", "utf-8")
        plot(counts, folder / f"{part}.png", f"{part}, {len(cases)} prompts, default layers")
        for language in ("en", "ru", ALL):
            found = counts[ALL, language, ALL]
            print(f"{part:12} {language:4} recall {found.recall:6.1%}  false positives {found.false_positives:6.1%}")
    _leave_one_family_out(samples)


def _leave_one_family_out(samples: Sequence[Sample]) -> None:
    """What the classifier catches of a kind of attack that it was never shown, at the thresholds that ship."""
    reader, shipped = Reader(), Head.load()
    for family in sorted({sample.family for sample in samples if sample.is_attack}):
        rest = [each for each in samples if each.part != "held_out" and not (each.is_attack and each.family == family)]
        scanner = reader.scanner(reader.fitted(rest))
        unseen = [each for each in samples if each.is_attack and each.family == family]
        caught = sum(scanner.score(each.text)[0] >= shipped.block_from for each in unseen)
        print(f"never shown  {family:13} classifier alone catches {caught / len(unseen):6.1%} of {len(unseen)}")


class Reader:
    """Reads prompts as the classifier does, each once."""

    def __init__(self) -> None:
        self._readable = load_policy(PACKS).scanners[Direction.INPUT].readable
        self._concepts = Concepts(compile_database)
        self._seen: dict[str, Features] = {}

    def scanner(self, head: Head) -> ClassifierScanner:
        """The layer with other weights."""
        return ClassifierScanner(head, self._concepts, self._readable)

    def fitted(self, samples: Sequence[Sample]) -> Head:
        """Weights for these prompts."""
        return fit(
            [self._features(each.text) for each in samples], [each.is_attack for each in samples], self._concepts.size
        )

    def unseen_scores(self, known: Sequence[Sample], wanted: Callable[[Sample], bool]) -> list[float]:
        """Scores of the wanted by heads that were shown no text of their templates."""
        templates = list(dict.fromkeys(each.template for each in known))
        fold_of = {template: number % FOLDS for number, template in enumerate(templates)}
        scores = []
        for fold in range(FOLDS):
            scanner = self.scanner(self.fitted([each for each in known if fold_of[each.template] != fold]))
            scores += [scanner.score(each.text)[0] for each in known if fold_of[each.template] == fold and wanted(each)]
        return scores

    def _features(self, text: str) -> Features:
        if text not in self._seen:
            self._seen[text] = features(self._readable(text)[-1].folded, self._concepts)
        return self._seen[text]


def _above(ascending: Sequence[float], share: float) -> float:
    """The threshold that lets this share of scores reach it."""
    return float(np.quantile(ascending, 1 - share)) + 1e-6


main()
