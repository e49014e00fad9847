"""Vectors of tokens, small enough to be kept with a text: 64 bytes for each depth."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.inference.e5.encoder import DEPTHS, Encoded
from services.inference.e5.graph import COMPONENTS, INPUT, projection, session

BASIS = Path(__file__).with_name("basis.npz")
"""Written by `make fit-token-vectors`."""
DIMENSIONS = 64
MOST_TOKENS = 128
"""Longer texts have no vectors of tokens: they are for comparing questions."""
LARGEST = 127


@dataclass(frozen=True, slots=True)
class TokenVectors:
    """The tokens of a text; only the directions of the vectors mean anything."""

    values: NDArray[np.int8]
    """Token, depth, dimension."""
    rarity: NDArray[np.float32]
    """How much each token says, from 0.2 to 10.2."""


class Basis:
    """The directions in which tokens differ most, at each depth."""

    def __init__(self, path: Path = BASIS) -> None:
        with np.load(path, allow_pickle=False) as file:
            means, directions = (file[name].astype(np.float32) for name in ("means", "directions"))
        self._session = session(projection(means, directions))
        self.name = hashlib.sha256(means.tobytes() + directions.tobytes()).hexdigest()[:8]
        """Changes with the numbers: vectors of two bases cannot be compared."""

    def tokens(self, encoded: Encoded) -> TokenVectors | None:
        """The vectors of an encoded text's tokens; none if it is too long."""
        if len(encoded.rarity) > MOST_TOKENS:
            return None
        return TokenVectors(self._reduced(encoded.states), encoded.rarity)

    def _reduced(self, states: Mapping[int, NDArray[np.float32]]) -> NDArray[np.int8]:
        stacked = np.stack([states[depth] for depth in DEPTHS])
        (reduced,) = self._session.run([COMPONENTS], {INPUT: stacked})
        largest = np.abs(reduced).max(axis=2, keepdims=True)
        steps = np.rint(reduced * (LARGEST / np.maximum(largest, np.finfo(np.float32).tiny)))
        values: NDArray[np.int8] = steps.astype(np.int8).transpose(1, 0, 2)
        return values
