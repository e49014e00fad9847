"""What became of each layer: told to whoever tries a text."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from enum import IntEnum

from services.guard.verdict import FAILED, FAILED_OPEN, Verdict


class Outcome(IntEnum):
    """What became of a layer; the numbers are those of the proto."""

    JUDGED = 1
    NOT_ASKED = 2
    FAILED = 3
    ABSENT = 4


def outcomes(layers: Iterable[str], present: Collection[str], verdict: Verdict) -> Iterator[tuple[str, Outcome]]:
    """For each of the layers that there could be, what became of it."""
    rules = {found.rule for found in verdict.findings}
    for layer in layers:
        if layer not in present:
            yield layer, Outcome.ABSENT
        elif rules & {f"{layer}.{FAILED}", f"{layer}.{FAILED_OPEN}"}:
            yield layer, Outcome.FAILED
        else:
            yield layer, Outcome.JUDGED if layer in verdict.layer_seconds else Outcome.NOT_ASKED
