"""Student's t: what a mean of few groups says."""

from __future__ import annotations

import math

import numpy as np

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)
"""For degrees of freedom up to some hundreds, as those of GROUPS groups are."""
FARTHEST = 1e4


def two_sided(t: float, freedom: float) -> float:
    """Probability of a value at least so far from 0, on either side."""
    angle = math.atan(abs(t) / math.sqrt(freedom))
    return _area(angle, freedom) / _area(0.0, freedom)


def quantile(confidence: float, freedom: float) -> float:
    """The value that is not exceeded, on either side, with this probability."""
    low, high = 0.0, FARTHEST
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if two_sided(middle, freedom) > 1 - confidence else (low, middle)
    return high


def _area(angle: float, freedom: float) -> float:
    """With t = sqrt(freedom) tan(angle) the density is a power of the cosine: its integral from there to the end."""
    half = (math.pi / 2 - angle) / 2
    return half * float(_WEIGHTS @ np.cos(angle + half * (_NODES + 1)) ** (freedom - 1))
