"""What is measured of the requests of an experiment."""

from __future__ import annotations

from enum import StrEnum


class Measure(StrEnum):
    """What one request tells a number of. docs/experiments.md says what each is."""

    SUCCESS = "success"
    FALLBACK = "fallback"
    ABANDONED = "abandoned"
    FIRST_TOKEN_SECONDS = "first_token_seconds"  # noqa: S105 - seconds, no secret
    SECONDS = "seconds"
    COST_MICROS = "cost_micros"
    OUTPUT_TOKENS = "output_tokens"
    QUALITY = "quality"


MEASURES = tuple(Measure)
DIRECTIONS = {Measure.SUCCESS: 1, Measure.QUALITY: 1, Measure.OUTPUT_TOKENS: 0}
"""1 where more is better, 0 where nobody can tell; less is better of all others."""
