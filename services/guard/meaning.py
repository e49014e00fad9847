"""How near the meaning of a text is to attacks and to innocent prompts that are known: the head of the embedding layer.

A kernel machine over the vectors of `MODEL`, weighed together with what the classifier thought of the words: wordings
tell what meanings blur, and the other way round. `make train-guard` writes its weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from services.guard.classifier import Doubts, WeightsInvalid
from services.guard.features import FEATURES_VERSION

MODEL = "multilingual-e5-small"
DIMENSIONS = 384
WEIGHTS = Path(__file__).parent / "meaning.npz"
STEEPNESS = 2.0
"""How fast the pull of a known text falls with the distance to it."""
VERSION = f"{MODEL}/{FEATURES_VERSION}"
SURE = 1e-6
"""No probability of the classifier counts as nearer to certainty than this."""

Vectors = NDArray[np.float32]


class MeaningHead(NamedTuple):
    """The trained weights."""

    centre: Vectors
    """Of all known texts: the model's vectors lie in a narrow cone."""
    known: Vectors
    """Known texts seen from there, one a row, of length 1."""
    pulls: Vectors
    """How much each of them speaks for an attack, or against."""
    rest: float
    """The pull where nothing known is near."""
    of_meaning: float = 1.0
    of_words: float = 0.0
    bias: float = 0.0
    asked_from: float = 0.0
    """Probability of the classifier from which the layer is asked."""
    sure_from: float = 1.0
    """Probability of the classifier from which nobody need be asked."""
    block_from: float = 1.0
    """Probability from which a prompt is refused."""
    unsure_from: float = 1.0
    """Probability from which slower layers are asked."""
    acquit_below: float = 0.0
    """Probability under which what only patterns refuse passes."""

    @property
    def doubts(self) -> Doubts:
        """The classifier's probabilities about which it decides."""
        return Doubts(self.asked_from, self.sure_from)

    @classmethod
    def load(cls, path: Path = WEIGHTS) -> MeaningHead:
        """Read the weights.

        Raises:
            WeightsInvalid: If they were trained for another model, or another classifier.
        """
        with np.load(path, allow_pickle=False) as stored:
            if str(stored["version"]) != VERSION:
                raise WeightsInvalid(f"{path} is for {stored['version']}: run make train-guard")
            centre, known, pulls = (stored[name].astype(np.float32) for name in cls._fields[:3])
            return cls(centre, known, pulls, *map(float, stored["scalars"]))

    def save(self, path: Path = WEIGHTS) -> None:
        """Write the weights, without pickle."""
        arrays = {name: getattr(self, name).astype(np.float16) for name in self._fields[:3]}
        np.savez_compressed(path, version=np.array(VERSION), scalars=np.array(self[3:]), **arrays)

    def pull(self, vectors: Vectors) -> Vectors:
        """How much all known texts together speak for an attack, for each row."""
        pulls: Vectors = near(centred(vectors, self.centre), self.known) @ self.pulls + np.float32(self.rest)
        return pulls

    def probability(self, vector: Vectors, of_the_words: float) -> float:
        """How likely a text is an attack, whose words the classifier gave this probability."""
        total = self.bias + self.of_meaning * float(self.pull(vector[None, :])[0]) + self.of_words * logit(of_the_words)
        return float(1 / (1 + np.exp(-total)))


def centred(vectors: Vectors, centre: Vectors) -> Vectors:
    """Vectors seen from `centre`, of length 1."""
    seen = vectors - centre
    unit: Vectors = seen / np.maximum(np.linalg.norm(seen, axis=1, keepdims=True), 1e-9)
    return unit


def near(some: Vectors, others: Vectors) -> Vectors:
    """The kernel: 1 for the same direction, less the further apart; rows are `some`."""
    kernel: Vectors = np.exp(STEEPNESS * (some @ others.T - 1))
    return kernel


def logit(probability: float) -> float:
    """A probability on a scale without ends."""
    inside = min(max(probability, SURE), 1 - SURE)
    return float(np.log(inside / (1 - inside)))
