"""How much the meaning of a text is that of an attack: the head of the embedding layer.

A linear head over vectors of `MODEL`, which an adapter makes say what is an attack, weighed together with what the
classifier thought of the words. `make train-guard` writes its weights, and the adapter into the inference room.
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
VERSION = f"{MODEL}, adapted/{FEATURES_VERSION}"
SURE = 1e-6
"""No probability of the classifier counts as nearer to certainty than this."""

Vectors = NDArray[np.float32]


class MeaningHead(NamedTuple):
    """The trained weights."""

    adapter: str
    """What the vectors are made with; its name changes with its contents, so that no other can be taken for it."""
    direction: Vectors
    """Where attacks lie among the vectors."""
    rest: float
    """The pull of a vector across that direction."""
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
            direction = stored["direction"].astype(np.float32)
            return cls(str(stored["adapter"]), direction, *map(float, stored["scalars"]))

    def save(self, path: Path = WEIGHTS) -> None:
        """Write the weights, without pickle."""
        version, adapter, scalars = np.array(VERSION), np.array(self.adapter), np.array(self[2:])
        np.savez_compressed(path, version=version, adapter=adapter, direction=self.direction, scalars=scalars)

    def probability(self, vector: Vectors, of_the_words: float) -> float:
        """How likely a text is an attack, whose words the classifier gave this probability."""
        pull = float(vector @ self.direction) + self.rest
        total = self.bias + self.of_meaning * pull + self.of_words * logit(of_the_words)
        return float(1 / (1 + np.exp(-total)))


def logit(probability: float) -> float:
    """A probability on a scale without ends."""
    inside = min(max(probability, SURE), 1 - SURE)
    return float(np.log(inside / (1 - inside)))
