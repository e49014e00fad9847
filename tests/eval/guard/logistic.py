"""Logistic regression over the classifier's features, by Adam on the whole set; the same set gives the same weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from services.guard.classifier import CONCEPT_SCALE, WORDS_SCALE, Head
from services.guard.features import HASH_BITS, Features, Places

STEPS = 300
RATE = 0.05
PENALTY = 1e-4
FIRST_MOMENT, SECOND_MOMENT, TINY = 0.9, 0.999, 1e-8

Array = NDArray[np.float64]


def _sparse(rows: Sequence[Places], width: int, *, length: float = 1.0, scale: float | None = None) -> csr_array:
    """Rows of a few equal values each: `scale`, or `length` shared out so that the row has that length."""
    lengths = [len(row) for row in rows]
    values = np.repeat([scale or length / np.sqrt(max(1, count)) for count in lengths], lengths)
    return csr_array((values, np.concatenate(rows), np.cumsum([0, *lengths])), (len(rows), width))


def fit(seen: Sequence[Features], attacks: Sequence[bool], shares: Sequence[float], concept_count: int) -> Head:
    """The weights that tell attacks from the rest.

    `shares` says how much each counts among its kind; both kinds count the same. Thresholds are set later.
    """
    wanted, importance = np.array(attacks, np.float64), np.array(shares, np.float64)
    importance *= np.where(wanted > 0, 0.5 / importance[wanted > 0].sum(), 0.5 / importance[wanted == 0].sum())
    widths = (1 << HASH_BITS, 1 << HASH_BITS, concept_count)
    blocks = [
        _sparse([each.letters for each in seen], widths[0]),
        _sparse([each.words for each in seen], widths[1], length=WORDS_SCALE),
        _sparse([each.concepts for each in seen], widths[2], scale=CONCEPT_SCALE),
    ]
    penalty = np.repeat([PENALTY, 0], [sum(widths), 1])
    edges = np.cumsum(widths)

    def gradient(weights: Array) -> Array:
        *parts, bias = np.split(weights, edges)
        total = bias + sum(block @ part for block, part in zip(blocks, parts, strict=True))
        errors = importance * (1 / (1 + np.exp(-total)) - wanted)
        slopes = [*(block.T @ errors for block in blocks), np.array([errors.sum()])]
        slope: Array = np.concatenate(slopes) + penalty * weights
        return slope

    parts = [part.astype(np.float32) for part in np.split(_minimum(gradient, len(penalty)), edges)]
    return Head(parts[0], parts[1], parts[2], float(parts[3][0]))


def _minimum(gradient: Callable[[Array], Array], size: int) -> Array:
    weights, first, second = np.zeros(size), np.zeros(size), np.zeros(size)
    for step in range(1, STEPS + 1):
        slope = gradient(weights)
        first = FIRST_MOMENT * first + (1 - FIRST_MOMENT) * slope
        second = SECOND_MOMENT * second + (1 - SECOND_MOMENT) * slope**2
        unbiased = first / (1 - FIRST_MOMENT**step)
        weights -= RATE * unbiased / (np.sqrt(second / (1 - SECOND_MOMENT**step)) + TINY)
    return weights
