"""Finds the directions in which tokens of questions differ most, and writes them beside the encoder.

    python -m tests.eval.cache.token_vectors

For each depth of the embedding model: every number of a token's state less its mean and in units of its spread, over
the questions of the parts "train" and "calibration", then the first principal components. "heldout" is not read.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from services.inference.e5.encoder import DEPTHS, Encoder
from services.inference.e5.tokens import BASIS, DIMENSIONS
from tests.eval.cache.questions import load


class Moments:
    """What principal components are made from, added up text by text."""

    def __init__(self, width: int) -> None:
        self.count = 0
        self._sum = np.zeros(width)
        self._products = np.zeros((width, width))

    def add(self, states: NDArray[np.float32]) -> None:
        """Count the tokens of a text."""
        self.count += len(states)
        self._sum += states.sum(axis=0, dtype=np.float64)
        self._products += states.T @ states

    def basis(self) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
        """The mean, the directions that take a state to its components, and what share of the spread these hold."""
        mean = self._sum / self.count
        covariance = self._products / self.count - np.outer(mean, mean)
        spread = np.sqrt(np.diag(covariance))
        shares, axes = np.linalg.eigh(covariance / np.outer(spread, spread))
        directions = axes[:, -DIMENSIONS:] / spread[:, None]
        return mean, directions, float(shares[-DIMENSIONS:].sum() / shares.sum())


def main() -> None:
    """Encode the questions, and write the basis."""
    encoder = Encoder()
    texts = sorted({text for pair in load("train", "calibration") for text in (pair.a, pair.b)})
    moments = {depth: Moments(encoder.dimensions) for depth in DEPTHS}
    for text in texts:
        for depth, states in encoder.encode(text, states=True).states.items():
            moments[depth].add(states)
    means, directions, shares = zip(*(moments[depth].basis() for depth in DEPTHS), strict=True)
    np.savez_compressed(BASIS, means=np.float32(means), directions=np.float16(directions))
    held = ", ".join(f"{share:.2f} at depth {depth}" for depth, share in zip(DEPTHS, shares, strict=True))
    print(f"{len(texts)} questions, {moments[DEPTHS[0]].count} tokens; {DIMENSIONS} components hold {held}")


if __name__ == "__main__":
    main()
