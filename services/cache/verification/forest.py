"""The learned part of the verifier: a forest of decision trees, read from numbers alone."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


class Forest:
    """How sure the forest is that two questions ask the same; all trees walk at once, 0.1 ms a pair."""

    def __init__(self, path: Path) -> None:
        with np.load(path, allow_pickle=False) as file:
            self.features: tuple[str, ...] = tuple(file["features"].tolist())
            """Names of the features, in the order the trees know them."""
            self._roots: NDArray[np.int32] = file["roots"]
            self._feature: NDArray[np.int16] = file["feature"]
            self._limit: NDArray[np.float32] = file["limit"]
            self._below: NDArray[np.int32] = file["below"]
            self._above: NDArray[np.int32] = file["above"]
            self._share: NDArray[np.float32] = file["share"]

    @classmethod
    def packaged(cls) -> Forest:
        """The forest made by `make train-cache-verifier`."""
        with as_file(files(__package__) / "weights" / "forest.npz") as path:
            return cls(path)

    def certainty(self, measured: Mapping[str, float]) -> float:
        """From 0 to 1; mean over the trees of the share of training pairs there that ask the same."""
        values = np.array([measured[name] for name in self.features], dtype=np.float32)
        at = self._roots
        while True:
            features = self._feature[at]
            if not (features >= 0).any():
                return float(self._share[at].mean())
            down = values[features] <= self._limit[at]
            at = np.where(features < 0, at, np.where(down, self._below[at], self._above[at]))
