"""The classifier layer: how much a prompt reads like an attack on its model's instructions, whatever its words.

A linear head over `features.py`, trained by `make train-guard`. It costs some tenths of a millisecond, so that it looks
at every prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from services.guard.features import FEATURES_VERSION, Concepts, Features, features, windows
from services.guard.unwrapping import View
from services.guard.verdict import Action, DataClass, Finding, RiskLevel

LAYER = "classifier"
RULE = "classifier.injection"
UNSURE_RULE = "classifier.unsure"
WEIGHTS = Path(__file__).parent / "weights.npz"
CONCEPT_SCALE, WORDS_SCALE = 0.25, 2.0
"""How much a concept weighs, and all words together, where all groups of letters together weigh 1."""
BLOCKS = ("letters", "words", "concepts")


class WeightsInvalid(Exception):
    """A file of weights that this code cannot use."""


class Doubts(NamedTuple):
    """The probabilities about which others decide: `first`, and up to `end`."""

    first: float
    end: float


class Head(NamedTuple):
    """The trained weights."""

    letters: NDArray[np.float32]
    words: NDArray[np.float32]
    concepts: NDArray[np.float32]
    bias: float
    block_from: float = 1.0
    """Probability from which a prompt is refused."""
    unsure_from: float = 1.0
    """Probability from which the slower layers are asked."""

    @property
    def doubts(self) -> Doubts:
        """Which probabilities refuse nothing and are left to other layers, where the classifier has the last word."""
        return Doubts(self.unsure_from, self.block_from)

    @classmethod
    def load(cls, path: Path = WEIGHTS) -> Head:
        """Read the weights.

        Raises:
            WeightsInvalid: If they were trained for other features.
        """
        with np.load(path, allow_pickle=False) as stored:
            if str(stored["version"]) != FEATURES_VERSION:
                raise WeightsInvalid(f"{path} is for features {stored['version']}: run make train-guard")
            letters, words, concepts = (stored[name].astype(np.float32) for name in BLOCKS)
            bias, block_from, unsure_from = (float(each) for each in stored["scalars"])
        return cls(letters, words, concepts, bias, block_from, unsure_from)

    def save(self, path: Path = WEIGHTS) -> None:
        """Write the weights, without pickle."""
        blocks = {name: getattr(self, name).astype(np.float16) for name in BLOCKS}
        scalars = np.array([self.bias, self.block_from, self.unsure_from])
        np.savez_compressed(path, version=FEATURES_VERSION, scalars=scalars, **blocks)

    def probability(self, seen: Features) -> float:
        """How likely a window is an attack."""
        total = self.bias + CONCEPT_SCALE * float(self.concepts[seen.concepts].sum())
        total += float(self.letters[seen.letters].sum()) / np.sqrt(max(1, len(seen.letters)))
        total += WORDS_SCALE * float(self.words[seen.words].sum()) / np.sqrt(max(1, len(seen.words)))
        return float(1 / (1 + np.exp(-total)))


class ClassifierScanner:
    """Judges the words of whoever could mean harm."""

    layer = LAYER

    def __init__(
        self,
        head: Head,
        concepts: Concepts,
        readable: Callable[[str], Sequence[View]],
        doubts: Doubts | None = None,
    ) -> None:
        """`readable` gives a text with what is encoded in it decoded, in every way it may be read.

        With `doubts` there is a layer that decides about these.
        """
        self._head = head
        self._doubts = doubts or head.doubts
        self._concepts = concepts
        self._readable = readable

    def score(self, text: str) -> tuple[float, int, int]:
        """How likely the likeliest window of a text is an attack, and where it lies in the text."""
        return max(self._scores(text), default=(0.0, 0, len(text)))

    def _scores(self, text: str) -> Iterator[tuple[float, int, int]]:
        for view in filter(lambda view: view.folded, self._readable(text)):
            for start, end in windows(len(view.folded)):
                probability = self._head.probability(features(view.folded[start:end], self._concepts))
                yield probability, *view.original(start, end)

    def scan(self, text: str, *, attacks: bool = True) -> Iterator[Finding]:
        """The likeliest window, if it is likely enough to be refused or to be looked at by others."""
        if not attacks or not text.strip():
            return
        score, start, end = self.score(text)
        if score >= self._doubts.end:
            yield _finding(RULE, RiskLevel.HIGH, Action.BLOCK, start, end, score)
        elif score >= self._doubts.first:
            yield _finding(UNSURE_RULE, RiskLevel.LOW, Action.ALLOW, start, end, score)


def _finding(rule: str, severity: RiskLevel, action: Action, start: int, end: int, score: float) -> Finding:
    return Finding(rule, "prompt_injection", severity, action, DataClass.PUBLIC, start, end, LAYER, score)
