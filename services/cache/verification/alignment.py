"""How the tokens of two questions stand for each other, as the embedding model sees them at several depths.

A token is a different vector at each depth of the model: near its input what the word is, near its output what it does
in the sentence. What matches early and no longer late is the same word in another role.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from services.cache.verification.wording import Features

Numbers: TypeAlias = NDArray[np.float32]

DEPTHS = ("early", "late")
DIMENSIONS = 64
"""Of a token at a depth."""
TOKEN_BYTES = len(DEPTHS) * DIMENSIONS + 1
"""Of a token as it is kept."""
RARITY_STEPS = 25
"""A rarity of 1 is so many steps of the byte it is kept in."""
DECIMALS = 4
"""Of features: what comes after them is rounding, which must decide nothing."""
SAME_WORD = 0.6
"""Cosine near the input from which two tokens are taken for one word."""


@dataclass(frozen=True)
class TokenVectors:
    """The tokens of one question."""

    basis: str
    """What the vectors were reduced to; those of another basis cannot be compared with them."""
    states: NDArray[np.int8]
    """Token, depth, number; only directions mean anything."""
    rarities: Numbers
    """How much each token says, above 0."""

    @staticmethod
    def outermost(basis: str, states: NDArray[np.int8], rarities: Numbers) -> TokenVectors:
        """Of the depths given, the first and the last: those between tell pairs apart no better."""
        return TokenVectors(basis, states[:, [0, -1]], rarities)

    @staticmethod
    def unpacked(packed: bytes) -> TokenVectors:
        """Read what `packed` wrote; of anything else whatever can be read, down to no token at all."""
        basis, _, rows = packed.partition(b"\n")
        tokens = len(rows) // TOKEN_BYTES
        table = np.frombuffer(rows, np.int8, tokens * TOKEN_BYTES).reshape(tokens, TOKEN_BYTES)
        states = table[:, :-1].reshape(tokens, len(DEPTHS), DIMENSIONS)
        rarities: Numbers = table[:, -1].view(np.uint8).astype(np.float32) / np.float32(RARITY_STEPS)
        return TokenVectors(basis.decode(errors="replace"), states, rarities)

    @property
    def packed(self) -> bytes:
        """To be kept: a byte for each number and each rarity."""
        rarities = np.rint(self.rarities * RARITY_STEPS).clip(1, 255).astype(np.uint8).view(np.int8)
        rows = np.hstack([self.states.reshape(len(rarities), TOKEN_BYTES - 1), rarities[:, None]])
        return self.basis.encode() + b"\n" + rows.tobytes()

    def is_comparable(self, other: TokenVectors) -> bool:
        """Whether both have tokens, seen in the same way."""
        return self.basis == other.basis and bool(len(self.rarities)) and bool(len(other.rarities))

    @cached_property
    def units(self) -> Numbers:
        """Depth, token, number: the states with length 1."""
        states = self.states.transpose(1, 0, 2).astype(np.float32, order="C")
        lengths = np.sqrt(np.einsum("dtn,dtn->dt", states, states))
        units: Numbers = states / np.maximum(lengths, 1)[..., None]
        return units


def alignment(left: TokenVectors, right: TokenVectors) -> Features:
    """How well every token is matched by one of the other question; the same whichever comes first."""
    cosines = left.units @ right.units.transpose(0, 2, 1)
    mine, yours = _Side(cosines, left.rarities), _Side(cosines.transpose(0, 2, 1), right.rarities)
    measured = {
        **_less_and_more("covered", mine.covered, yours.covered),
        **_less_and_more("least", mine.least, yours.least),
        **_less_and_more("worst", mine.worst, yours.worst),
        **_less_and_more("lost", mine.lost, yours.lost),
    }
    kept = np.concatenate([mine.kept, yours.kept])
    by_depth = {
        f"tokens_{name}_{depth}": round(value, DECIMALS)
        for name, values in measured.items()
        for depth, value in zip(DEPTHS, values.tolist(), strict=True)
    }
    kept_least, kept_mean = round(float(kept.min()), DECIMALS), round(float(kept.mean()), DECIMALS)
    return {**by_depth, "tokens_kept_least": kept_least, "tokens_kept_mean": kept_mean}


class _Side:
    """One question's tokens against the other's, at every depth."""

    def __init__(self, cosines: Numbers, rarities: Numbers) -> None:
        best = cosines.max(axis=2)
        losses = rarities * (1 - best)
        self.lost = losses.sum(axis=1)
        self.worst = losses.max(axis=1)
        self.covered = 1 - self.lost / rarities.sum()
        self.least = best.min(axis=1)
        self.kept = _kept(cosines, best[0])


def _kept(cosines: Numbers, best: Numbers) -> Numbers:
    """Cosines near the output of what is one word near the input; zero when nothing is."""
    tokens = np.flatnonzero(best > SAME_WORD)
    kept = cosines[-1, tokens, cosines[0, tokens].argmax(axis=1)]
    return kept if len(tokens) else np.zeros(1, dtype=np.float32)


def _less_and_more(name: str, mine: Numbers, yours: Numbers) -> dict[str, Numbers]:
    return {f"{name}_less": np.minimum(mine, yours), f"{name}_more": np.maximum(mine, yours)}
