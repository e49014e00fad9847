"""Runs the layers over a text, the cheapest first, and merges what they find into one verdict."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Protocol

from meshkit.log import get_logger
from services.guard.passages import SLICE, Passage, slices
from services.guard.verdict import FAILED, Action, Finding, Verdict, merge, note, undecided

log = get_logger()

LONGEST_CONTESTED = 8_000
"""Characters of a prompt that is judged on although it has been refused, for that may be overruled."""


class Scanner(Protocol):
    """A layer that looks at a text by itself, in the time of a call."""

    @property
    def layer(self) -> str:
        """Its name in verdicts."""

    def scan(self, text: str, *, attacks: bool = True) -> Iterable[Finding]:
        """Everything it finds; without `attacks`, only what concerns the text's data."""


class Cascade:
    """The layers of one direction.

    A later layer is not asked about a text that an earlier one refuses for good, nor about a long one that it refuses.
    """

    def __init__(self, scanners: Sequence[Scanner]) -> None:
        self._scanners = scanners

    @property
    def layers(self) -> list[str]:
        """The names of its layers, in the order of asking."""
        return [scanner.layer for scanner in self._scanners]

    def including(self, scanner: Scanner) -> Cascade:
        """The same with one more, asked before the last of the others if there are several."""
        first = max(1, len(self._scanners) - 1)
        return Cascade([*self._scanners[:first], scanner, *self._scanners[first:]])

    async def judge(self, passages: Sequence[Passage]) -> Verdict:
        """The verdict on passages that belong together.

        A scanner that fails makes the verdict an error, never an allow.
        """
        findings: list[Finding] = []
        seconds: dict[str, float] = {}
        for scanner in self._scanners:
            started = time.perf_counter()
            try:
                findings += await _scan_all(scanner, passages)
            except Exception as error:
                log.exception("scanner_failed", layer=scanner.layer, error=type(error).__name__)
                return undecided(seconds, note(scanner.layer, FAILED))
            finally:
                seconds[scanner.layer] = time.perf_counter() - started
            if _is_settled(findings, passages):
                break
        return merge(findings, seconds)


def _is_settled(findings: Sequence[Finding], passages: Sequence[Passage]) -> bool:
    refusals = [found for found in findings if found.action is Action.BLOCK]
    length = sum(len(passage.text) for passage in passages)
    return any(found.final for found in refusals) or bool(refusals and length > LONGEST_CONTESTED)


async def _scan_all(scanner: Scanner, passages: Sequence[Passage]) -> list[Finding]:
    """Everything the scanner finds; between many short passages, too, other calls get their turn."""
    findings: list[Finding] = []
    at_a_stretch = 0
    for passage in passages:
        at_a_stretch += len(passage.text)
        if at_a_stretch > SLICE:
            await asyncio.sleep(0)
            at_a_stretch = 0
        findings += await _scan(scanner, passage)
    return findings


async def _scan(scanner: Scanner, passage: Passage) -> list[Finding]:
    """Everything the scanner finds; between the slices of a long passage other calls get their turn."""
    findings: list[Finding] = []
    for place, text in slices(passage.text):
        if place:
            await asyncio.sleep(0)
        findings += (
            replace(found, start=found.start + place, end=found.end + place, message_index=passage.message_index)
            for found in scanner.scan(text, attacks=passage.attacks)
        )
    return findings
