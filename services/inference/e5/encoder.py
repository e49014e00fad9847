"""Texts as vectors, and as vectors of their tokens."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.inference.e5.adapters import NONE, Adapter, check, products
from services.inference.e5.embeddings import Inputs
from services.inference.e5.graph import INPUT, Layers, session, state

NAME = "multilingual-e5-small"
DEPTHS = (4, 8, 12)
"""Layers whose tokens can be had; the last is what vectors are made of."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A text as the model sees it."""

    vector: NDArray[np.float32]
    """Of length 1."""
    input_tokens: int
    """Read, prefix and marks included."""
    states: Mapping[int, NDArray[np.float32]]
    """By depth: a row for each token of the text itself."""
    rarity: NDArray[np.float32]
    """How much each of these tokens says."""


class Encoder:
    """The model. It keeps no state between texts: threads may share it, and it lets go of the interpreter's lock."""

    def __init__(self, path: Path | None = None, adapters: Mapping[str, Adapter] | None = None) -> None:
        """Read the model, and give it `adapters` by name.

        Raises:
            AdapterInvalid: If one does not fit the model.
        """
        self.inputs = Inputs.of(path)
        model = self.inputs.model
        self.dimensions: int = model.width
        self.context_tokens: int = model.positions
        """Most tokens it reads, prefix and marks included; of a longer text it reads the beginning."""
        self._pieces = self.inputs.pieces
        self._prefixes = {True: self._pieces.of("query:"), False: self._pieces.of("passage:")}
        self._adapters = {NONE: {}, **(adapters or {})}
        adapted = set[str]().union(*map(products, self._adapters.values()))
        layers = Layers(model, adapted)
        self._session = session(layers.graph(DEPTHS))
        for name, adapter in self._adapters.items():
            check(name, adapter, layers.sizes)

    @property
    def adapters(self) -> Collection[str]:
        """The names of all adapters, that of the plain model among them."""
        return self._adapters.keys()

    def encode(self, text: str, *, as_query: bool = True, states: bool = False, adapter: str = NONE) -> Encoded:
        """Encode a text as a question or as what is searched; `states` adds what its tokens are at each depth."""
        prefix = self._prefixes[as_query]
        tokens = self.inputs.marked(prefix, self._pieces.of(text), self.context_tokens)
        own = slice(1 + len(prefix), -1)
        depths = DEPTHS if states else DEPTHS[-1:]
        given = {INPUT: self.inputs.embeddings.of(tokens), **self._adapters[adapter]}
        computed = self._session.run([state(depth) for depth in depths], given)
        mean = computed[-1][0].mean(axis=0)
        return Encoded(
            vector=mean / np.linalg.norm(mean),
            input_tokens=len(tokens),
            states={depth: rows[0, own] for depth, rows in zip(depths, computed, strict=True)} if states else {},
            rarity=self._pieces.rarity(tokens[own]),
        )
