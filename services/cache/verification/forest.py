"""The learned part of the verifier: a forest of decision trees, read from numbers alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


class Forest:
    """How likely the forest finds it that two questions ask the same; all trees walk at once, for all pairs at once.

    A tree's root comes first, and the two nodes below a node stand side by side. A leaf leads to itself, so nobody has
    to look who has arrived: it asks for a feature that no pair has, and keeps its share where others keep their limit.
    With five bytes a node it is as small as that allows, so features are read in half precision, as it learned them.
    """

    def __init__(self, path: Path) -> None:
        with np.load(path, allow_pickle=False) as file:
            self.features: tuple[str, ...] = tuple(file["features"].tolist())
            """Names of the features, in the order the trees know them."""
            self._roots: NDArray[np.int32] = file["roots"]
            self._feature: NDArray[np.uint8] = file["feature"]
            self._limit: NDArray[np.float16] = file["limit"]
            self._below: NDArray[np.uint16] = file["below"]

    @classmethod
    def packaged(cls) -> Forest:
        """The forest made by `make train-cache-verifier`."""
        with as_file(files(__package__) / "weights" / "forest.npz") as path:
            return cls(path)

    def estimates(self, measured: Sequence[Mapping[str, float]]) -> list[float]:
        """Of each pair, from 0 to 1: mean over the trees of the share of training pairs there that ask the same."""
        rows = [[*(pair[name] for name in self.features), -np.inf] for pair in measured]
        values = np.array(rows, dtype=np.float16).ravel()
        pairs = np.arange(len(measured), dtype=np.int32)[:, None] * (len(self.features) + 1)
        at = np.repeat(self._roots[None], len(measured), axis=0)
        while True:
            right = values.take(self._feature.take(at) + pairs) > self._limit.take(at)
            lower = self._roots + self._below.take(at) + right
            if np.array_equal(lower, at):
                return [float(share) for share in self._limit.take(at).mean(axis=1, dtype=np.float32)]
            at = lower
