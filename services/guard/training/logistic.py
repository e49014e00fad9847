"""Logistic regression over the classifier's features, by Adam on the whole set; the same set gives the same weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from services.guard.classifier import CONCEPT_SCALE, Head
from services.guard.features import HASH_BITS, Features, Places

STEPS = 300
RATE = 0.05
WORDING_PENALTY, CONCEPT_PENALTY = 1e-3, 1e-3
FIRST_MOMENT, SECOND_MOMENT, TINY = 0.9, 0.999, 1e-8

Array = NDArray[np.float64]


class Sparse:
    """Rows of a few equal values each: scaled to length 1, or to `scale` each."""

    def __init__(self, rows: Sequence[Places], width: int, scale: float | None = None) -> None:
        lengths = [len(row) for row in rows]
        self._width, self._height = width, len(rows)
        self._row = np.repeat(np.arange(len(rows)), lengths)
        self._column = np.concatenate(rows)
        self._value = np.repeat([scale or 1 / np.sqrt(max(1, length)) for length in lengths], lengths)

    def times(self, weights: Array) -> Array:
        """Rows times weights."""
        return np.bincount(self._row, self._value * weights[self._column], self._height).astype(np.float64)

    def transposed_times(self, errors: Array) -> Array:
        """Columns times errors."""
        return np.bincount(self._column, self._value * errors[self._row], self._width).astype(np.float64)


def fit(seen: Sequence[Features], attacks: Sequence[bool], concept_count: int) -> Head:
    """The weights that tell attacks from the rest; both kinds count the same. Thresholds are set later."""
    wanted = np.array(attacks, np.float64)
    importance = np.where(wanted > 0, 0.5 / wanted.mean(), 0.5 / (1 - wanted.mean())) / len(wanted)
    widths = (1 << HASH_BITS, 1 << HASH_BITS, concept_count)
    scales = (None, None, CONCEPT_SCALE)
    blocks = [Sparse([each[kind] for each in seen], widths[kind], scales[kind]) for kind in range(3)]
    penalty = np.repeat([WORDING_PENALTY, WORDING_PENALTY, CONCEPT_PENALTY, 0], [*widths, 1])
    edges = np.cumsum(widths)

    def gradient(weights: Array) -> Array:
        *parts, bias = np.split(weights, edges)
        total = bias + sum(block.times(part) for block, part in zip(blocks, parts, strict=True))
        errors = importance * (1 / (1 + np.exp(-total)) - wanted)
        slopes = [*(block.transposed_times(errors) for block in blocks), np.array([errors.sum()])]
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
