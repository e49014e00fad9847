"""Has a text judged by a slower layer where the quick ones are unsure, and of the rest a sampled share.

A cloud sees only what is public, and nothing of a tenant whose data stays in Russia: sending it would be a cross-border
transfer. That it was not asked, and why, stands in the verdict, as does a failure that the tenant lets pass.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from meshkit.log import get_logger
from services.guard import metrics
from services.guard.azure import LAYER, AzureContentSafety, AzureFailed
from services.guard.passages import Passage
from services.guard.verdict import Action, DataClass, Finding, RiskLevel, Verdict, merge, undecided

log = get_logger()

ATTACK = "prompt_injection"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a tenant wants of the slower layers."""

    cloud: bool = False
    """Whether a cloud may judge its texts."""
    stays_in_russia: bool = False
    sampled_share: float = 0.0
    """Share of texts that are judged although nothing asks for it."""
    budget_seconds: float | None = None
    """Longest that a text waits; None leaves it to the guard."""
    fail_open: bool = False
    """Whether a failure lets the text pass."""


class Escalation:
    """The way to the cloud layer."""

    def __init__(self, azure: AzureContentSafety | None, budget_seconds: float, chance: random.Random) -> None:
        """Without `azure` there is no slower layer, and nothing is ever asked."""
        self._azure = azure
        self._budget_seconds = budget_seconds
        self._chance = chance

    async def judged(self, passages: Sequence[Passage], verdict: Verdict, wishes: Wishes) -> Verdict:
        """The verdict of the quick layers, or a stricter one."""
        suspects = [each for each in passages if each.attacks and each.text.strip()]
        reason = self._reason(verdict, wishes)
        if self._azure is None or not wishes.cloud or reason is None or not suspects:
            return verdict
        if (barrier := _barrier(verdict, wishes)) is not None:
            metrics.ESCALATIONS.labels(LAYER, reason, barrier).inc()
            return _with(verdict, [_note(f"azure.refused.{barrier}")])
        started = time.perf_counter()
        try:
            async with asyncio.timeout(wishes.budget_seconds or self._budget_seconds):
                found = await asyncio.gather(
                    *(self._azure.findings(each.text, each.message_index) for each in suspects)
                )
        except (AzureFailed, TimeoutError) as error:
            metrics.ESCALATIONS.labels(LAYER, reason, "failed").inc()
            log.warning("escalation_failed", layer=LAYER, error=str(error) or type(error).__name__)
            return _failed(_timed(verdict, started), wishes)
        metrics.ESCALATIONS.labels(LAYER, reason, "judged").inc()
        return _with(_timed(verdict, started), [each for findings in found for each in findings])

    def _reason(self, verdict: Verdict, wishes: Wishes) -> str | None:
        """Why a text goes on: something was found and not refused, or chance; None when it need not."""
        if verdict.action is not Action.ALLOW:
            return None
        if any(found.category == ATTACK for found in verdict.findings):
            return "unsure"
        return "sampled" if self._chance.random() < wishes.sampled_share else None


def _barrier(verdict: Verdict, wishes: Wishes) -> str | None:
    if wishes.stays_in_russia:
        return "cross_border"
    return "data_class" if verdict.data_class > DataClass.PUBLIC else None


def _failed(verdict: Verdict, wishes: Wishes) -> Verdict:
    """An error is never an allow, unless the tenant says so for this layer; then the verdict says so."""
    return _with(verdict, [_note("azure.failed_open")]) if wishes.fail_open else undecided(verdict.layer_seconds)


def _note(rule: str) -> Finding:
    return Finding(rule, "escalation", RiskLevel.LOW, Action.ALLOW, DataClass.PUBLIC, 0, 0, LAYER)


def _with(verdict: Verdict, findings: Sequence[Finding]) -> Verdict:
    merged = merge([*verdict.findings, *findings], verdict.layer_seconds)
    return merged.at_least(verdict.data_class)


def _timed(verdict: Verdict, started: float) -> Verdict:
    return replace(verdict, layer_seconds={**verdict.layer_seconds, LAYER: time.perf_counter() - started})
