"""Keeps the bounds of all replicas on one evidence: what tenants reported, wherever they reported it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from meshkit.dependency import Unavailable
from services.cache.errorbound import ErrorBound, level_of

if TYPE_CHECKING:
    from services.cache.use_records import UseRecords

RIGHT, WRONG = "right:", "wrong:"
"""What a field begins with; the level of certainty follows."""


def evidence_of(certainty: float, *, right: bool) -> str:
    """The field under which a judged hit is counted."""
    return f"{RIGHT if right else WRONG}{level_of(certainty)}"


def disputed_at(entry_id: str, evidence: str) -> str:
    """The entry that was wrong, with the level of the evidence."""
    return f"{entry_id}:{evidence.removeprefix(WRONG)}"


class SharedEvidence:
    """Takes over what other replicas were told, and after a restart everything."""

    def __init__(self, records: UseRecords, bound: ErrorBound, *, every_seconds: float) -> None:
        self._records = records
        self._bound = bound
        self._every_seconds = every_seconds
        self._seen = 0
        self._begun: dict[str, int] = {}

    async def run(self) -> None:
        """Follow the reports until cancelled; while Redis is away thresholds stay as they are."""
        while True:
            with suppress(Unavailable):
                await self._catch_up()
            await asyncio.sleep(self._every_seconds)

    async def _catch_up(self) -> None:
        self._seen, told = await self._records.evidence_since(self._seen)
        for tenant_id, reported in told.items():
            if reported.begun > self._begun.get(tenant_id, 0):
                self._begun[tenant_id] = reported.begun
                self._bound.forget(tenant_id)
            self._bound.restore(tenant_id, _levels(reported.counts, RIGHT), _levels(reported.counts, WRONG))
            for entry in reported.disputed:
                entry_id, _, level = entry.rpartition(":")
                self._bound.dispute(tenant_id, entry_id, int(level))


def _levels(counts: Mapping[str, int], verdict: str) -> dict[int, int]:
    return {int(name.removeprefix(verdict)): count for name, count in counts.items() if name.startswith(verdict)}
