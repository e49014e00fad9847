"""The table of word vectors, and how a text is read with it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

Vector: TypeAlias = NDArray[np.float32]

LONGEST_TEXT_CHARACTERS = 8000
"""Of a longer text the beginning is read: a mean over more words says less of each."""


class WordVectors:
    """Weighted mean of word vectors distilled from the accurate embedding model.

    A text's vector says what it speaks of, not what it says of it: word order and negation leave no trace. The table
    is mapped from its file, so that processes on one machine share one copy. Safe to share between threads.
    """

    def __init__(self, folder: Path) -> None:
        self._tokenizer: Tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        # As a plain array: a memmap makes one of every piece taken from it, which costs more than the piece.
        self._rows: NDArray[np.int8] = np.asarray(np.load(folder / "rows.npy", mmap_mode="r", allow_pickle=False))
        self._scales: Vector = np.load(folder / "scales.npy", allow_pickle=False).astype(np.float32)
        self.dimensions = int(self._rows.shape[1])
        """Length of every vector."""

    @classmethod
    @lru_cache(maxsize=1)
    def packaged(cls) -> WordVectors:
        """The table that travels with this package; one for the process."""
        with as_file(files(__package__) / "data") as folder:
            return cls(folder)

    def embed(self, text: str) -> Vector:
        """The vector of a text, of length 1; all zero when no word of it is known."""
        return self._mean(self._ids(text))

    def embed_all(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The vectors of many texts, one a row."""
        beginnings = [text[:LONGEST_TEXT_CHARACTERS] for text in texts]
        encoded = self._tokenizer.encode_batch_fast(beginnings, add_special_tokens=False)
        rows = [self._mean(encoding.ids) for encoding in encoded]
        return np.stack(rows) if rows else np.zeros((0, self.dimensions), dtype=np.float32)

    def weight(self, text: str) -> float:
        """How much a word counts in a text: near 0 for "the", near 1 for rare words; the sum over its parts."""
        return float(self._scales[self._ids(text)].sum())

    def _ids(self, text: str) -> list[int]:
        beginning = text[:LONGEST_TEXT_CHARACTERS]
        ids: list[int] = self._tokenizer.encode(beginning, add_special_tokens=False).ids
        return ids

    def _mean(self, ids: list[int]) -> Vector:
        total: Vector = self._scales[ids] @ self._rows[ids].astype(np.float32)
        length = float(np.sqrt(total @ total))
        return total / length if length else np.zeros(self.dimensions, dtype=np.float32)
