"""What goes into the layers: for each token the sum of its word, its place and its kind, normalised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.inference.e5.pieces import Pieces
from services.inference.e5.weights import ZERO, PackedModel, split


class Embeddings:
    """The model's tables. That of words stays in the file; rows are expanded as texts need them."""

    def __init__(self, model: PackedModel) -> None:
        self._width, self._epsilon = model.width, model.epsilon
        self._words = model.packed_rows("emb.word")
        kind = model.numbers("emb.type")[: model.width]
        self._places = model.numbers("emb.pos").reshape(-1, model.width) + kind
        self._scale, self._shift = model.numbers("emb.ln.w"), model.numbers("emb.ln.b")

    def of(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """A row for each token, of a batch of one text."""
        scales, codes = split(self._words[list(tokens)])
        words = (codes - np.float32(ZERO)) * scales[:, None]
        rows = words.reshape(len(tokens), self._width) + self._places[: len(tokens)]
        rows -= rows.mean(axis=1, keepdims=True)
        spread = np.sqrt((rows * rows).mean(axis=1, keepdims=True) + self._epsilon)
        embedded: NDArray[np.float32] = rows / spread * self._scale + self._shift
        return embedded[None].astype(np.float32, copy=False)


@dataclass(frozen=True, slots=True)
class Inputs:
    """Everything below the layers; 60 MB, so that all that compute with one model share it."""

    model: PackedModel
    pieces: Pieces
    embeddings: Embeddings

    @classmethod
    def of(cls, path: Path | None = None) -> Inputs:
        """Read the model's file; without a path the packaged one."""
        model = PackedModel(path)
        return cls(model, Pieces(model), Embeddings(model))

    def marked(self, prefix: Sequence[int], text: Sequence[int], most: int) -> list[int]:
        """The pieces of a text between the marks of its beginning and end, `most` in all."""
        return [self.model.begin, *prefix, *text[: most - len(prefix) - 2], self.model.end]
