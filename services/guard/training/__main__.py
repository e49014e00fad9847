"""`python -m services.guard.training train|evaluate`: trains the classifier, or measures the layers that ship."""

from __future__ import annotations

import argparse
import asyncio
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from services.guard.classifier import WEIGHTS, ClassifierScanner, Head
from services.guard.features import Concepts, Features, features, windows
from services.guard.kept import Kept
from services.guard.layers import PACKS, default_layers, refusals
from services.guard.matching import compile_database
from services.guard.measuring import Judge, confusions, plot, table
from services.guard.policy import load_policy
from services.guard.remote import SLOW_LAYERS, judged
from services.guard.training.logistic import fit
from services.guard.training.sets import LANGUAGES, Sample, load
from services.guard.verdict import Action, Direction

FOLDS = 5
MOST_REFUSED, MOST_REFUSED_OF_A_LANGUAGE, MOST_UNSURE = 0.03, 0.035, 0.08
"""Shares of the innocent that the thresholds let be refused by all layers together, or looked at by others, in
cross-validation."""
LEAST_BLOCK = 0.45
MOST_WINDOWS = 12
"""Of one text that are learnt from."""


def main() -> None:
    """Run one of the commands."""
    parser = argparse.ArgumentParser(prog="python -m services.guard.training", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train the classifier and write its weights")
    train.add_argument("--into", type=Path, default=WEIGHTS)
    evaluate = commands.add_parser("evaluate", help="measure the layers that ship; writes tables and plots")
    evaluate.add_argument("--into", type=Path, default=Path("var/eval-guard"))
    evaluate.add_argument("--target", help="also ask the guard that runs here, with its slow layers; 127.0.0.1:15001")
    given = parser.parse_args()
    _train(given.into) if given.command == "train" else _evaluate(given.into, given.target)


def _train(path: Path) -> None:
    """Fit on all but the held-out part; thresholds from scores of texts that the scoring head has not seen."""
    reader = Reader()
    known = [sample for sample in load() if sample.part != "held_out"]
    block_from, unsure_from = _thresholds(known, reader.unseen_scores(known), reader.refused_by_patterns)
    head = reader.fitted(known)._replace(block_from=block_from, unsure_from=unsure_from)
    head.save(path)
    print(f"{path}: {len(known)} prompts; refuses from {head.block_from:.3f}, unsure from {head.unsure_from:.3f}")


def _evaluate(folder: Path, target: str | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    layers = default_layers(Kept(None))
    samples, reader = load(), Reader()
    known = [each for each in samples if each.part != "held_out"]
    _report(folder, "known", known, lambda text: refusals(layers, text))
    scores = dict(zip((each.text for each in known), reader.unseen_scores(known), strict=True))
    shipped = Head.load()
    _report(
        folder,
        "unseen",
        known,
        lambda text: {**refusals(layers[:1], text), "classifier": scores[text] >= shipped.block_from},
    )
    held_out = [each for each in samples if each.part == "held_out"]
    pairs = [each for each in held_out if each.situation.startswith("pairs")]
    _report(folder, "held-out", [each for each in held_out if each not in pairs], lambda text: refusals(layers, text))
    _report(folder, "held-out pairs", pairs, lambda text: refusals(layers, text))
    if target:
        running = asyncio.run(judged(target, (each.text for each in held_out)))
        _report(folder, "held-out, the running guard", held_out, running.refusals.__getitem__)
        print(*running.told(), sep="\n")
    else:
        print(SLOW_LAYERS)
    _leave_one_family_out(reader, samples)


def _report(folder: Path, part: str, cases: Sequence[Sample], judge: Judge) -> None:
    """Print and keep the table, keep the plot. "unseen" is by heads that were shown nothing of the same situation."""
    counts = confusions(cases, judge)
    print(f"\n## {part}: {len(cases)} prompts\n\n{table(counts)}")
    (folder / f"{part}.md").write_text(table(counts) + "\n", "utf-8")
    plot(counts, folder / f"{part}.png", f"{part}, {len(cases)} prompts, default layers")


def _leave_one_family_out(reader: Reader, samples: Sequence[Sample]) -> None:
    """What the classifier catches of a kind of attack that it was never shown, at the thresholds that ship."""
    shipped = Head.load()
    for family in sorted({sample.family for sample in samples if sample.is_attack}):
        rest = [each for each in samples if each.part != "held_out" and not (each.is_attack and each.family == family)]
        scanner = reader.scanner(reader.fitted(rest))
        unseen = [each for each in samples if each.is_attack and each.family == family]
        caught = sum(scanner.score(each.text)[0] >= shipped.block_from for each in unseen)
        print(f"never shown  {family:13} classifier alone catches {caught / len(unseen):6.1%} of {len(unseen)}")


class Reader:
    """Reads prompts as the classifier does, each once."""

    def __init__(self) -> None:
        self._patterns = load_policy(PACKS).scanners[Direction.INPUT]
        self._readable = self._patterns.readable
        self._concepts = Concepts(compile_database)
        self._seen: dict[str, list[Features]] = {}

    def refused_by_patterns(self, text: str) -> bool:
        """Whether the layer before refuses a prompt."""
        return any(found.action is Action.BLOCK for found in self._patterns.scan(text))

    def scanner(self, head: Head) -> ClassifierScanner:
        """The layer with other weights."""
        return ClassifierScanner(head, self._concepts, self._readable)

    def fitted(self, samples: Sequence[Sample]) -> Head:
        """Weights for these prompts.

        Every window of an innocent text is innocent. Of an attack one is, at least: first all are taken, then the
        likeliest of each by what was learnt so far.
        """
        windows_of = [self._windows(each.text) for each in samples]
        head = self._fit(samples, windows_of)
        likeliest = [
            [max(each, key=head.probability)] if sample.is_attack else each
            for sample, each in zip(samples, windows_of, strict=True)
        ]
        return self._fit(samples, likeliest)

    def _fit(self, samples: Sequence[Sample], windows_of: Sequence[Sequence[Features]]) -> Head:
        rows = [
            (window, sample.is_attack, 1 / math.sqrt(len(each)))
            for sample, each in zip(samples, windows_of, strict=True)
            for window in each
        ]
        seen, attacks, shares = zip(*rows, strict=True)
        return fit(seen, attacks, shares, self._concepts.size)

    def unseen_scores(self, known: Sequence[Sample]) -> list[float]:
        """Scores of prompts, each by a head that was shown no text of its situation."""
        situations = list(dict.fromkeys(each.situation for each in known))
        fold_of = {situation: number % FOLDS for number, situation in enumerate(situations)}
        heads = [self.fitted([each for each in known if fold_of[each.situation] != fold]) for fold in range(FOLDS)]
        return [max(map(heads[fold_of[each.situation]].probability, self._windows(each.text))) for each in known]

    def _windows(self, text: str) -> list[Features]:
        if text not in self._seen:
            self._seen[text] = [
                features(view.folded[start:end], self._concepts)
                for view in self._readable(text)
                for start, end in windows(len(view.folded))
            ][:MOST_WINDOWS]
        return self._seen[text]


def _thresholds(
    known: Sequence[Sample], scores: Sequence[float], refused_by_patterns: Callable[[str], bool]
) -> tuple[float, float]:
    """From which scores prompts are refused and looked at by others; what the patterns refuse counts as refused."""
    scored = zip(known, scores, strict=True)
    innocent = [
        (each.language, 1.0 if refused_by_patterns(each.text) else score)
        for each, score in scored
        if not each.is_attack
    ]
    everyone = [score for _, score in innocent]
    of_languages = [[score for language, score in innocent if language == wanted] for wanted in LANGUAGES]
    lowest = [_above(everyone, MOST_REFUSED), *(_above(each, MOST_REFUSED_OF_A_LANGUAGE) for each in of_languages)]
    block_from = max(LEAST_BLOCK, *lowest)
    return block_from, min(block_from, _above(everyone, MOST_UNSURE))


def _above(scores: Sequence[float], share: float) -> float:
    """The threshold that lets this share of scores reach it."""
    return float(np.quantile(scores, 1 - share)) + 1e-6


main()
