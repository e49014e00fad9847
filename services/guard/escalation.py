"""Has a text judged by slower layers where the quick ones are unsure, and of the rest a sampled share.

The embedding layer comes first, for every tenant, then those that the tenant wishes, our own model before a cloud. A
cloud sees only what is public and hidden from nobody, and nothing of a tenant whose data may not be processed where
the cloud is: sending it would be a cross-border transfer. That a layer was not asked, and why, stands in the verdict,
as does a failure that the tenant lets pass.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from meshkit import egress
from meshkit.egress import Cargo, Destination, Residency, barriers
from meshkit.log import get_logger
from services.guard import metrics
from services.guard.passages import Passage
from services.guard.second_look import LAYER as SECOND_LOOK
from services.guard.second_look import SecondLook
from services.guard.verdict import FAILED, FAILED_OPEN, Action, Finding, Verdict, merge, note, undecided

log = get_logger()

UNSURE = frozenset({"prompt_injection", "harmful_content"})
"""Categories of which a text that was not refused is looked at again."""
JUDGED, GAVE_NONE = "judged", "failed"
"""What became of asking a layer, as metrics spell it."""
NOTHING_FOUND = merge((), {})


class JudgeFailed(Exception):
    """A layer gave no judgement; the message says why, without its words or the text's."""


class Judge(Protocol):
    """A layer that takes its time: a language model, or a cloud."""

    @property
    def layer(self) -> str:
        """Its name in verdicts and policies."""

    @property
    def destination(self) -> Destination | None:
        """Where it sends the text; None where that stays in the house."""

    async def findings(self, passages: Sequence[Passage], cargo: Cargo, /) -> list[Finding]:
        """Everything it finds in passages that belong together, `cargo` being whose they are; raises JudgeFailed."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a tenant wants of the slower layers."""

    layers: frozenset[str] = frozenset()
    """Those that may judge its texts."""
    residency: Residency = Residency.GLOBAL
    sampled_share: float = 0.0
    """Share of texts that are judged although nothing asks for it."""
    budget_seconds: float | None = None
    """Longest that a text waits for all of them together; None leaves it to the tier."""
    tier: str = ""
    fail_open: frozenset[str] = frozenset()
    """Layers whose failure lets the text pass."""


@dataclass(frozen=True, slots=True)
class Budgets:
    """How long a text waits for the slower layers where its tenant says nothing."""

    seconds: float
    of_tiers: Mapping[str, float] = field(default_factory=dict)

    def of(self, wishes: Wishes) -> float:
        """The budget of one text in seconds."""
        return wishes.budget_seconds or self.of_tiers.get(wishes.tier, self.seconds)


@dataclass(frozen=True, slots=True)
class AnswerJudge:
    """A layer of our own that judges the windows of one answer."""

    judge: Judge
    wishes: Wishes
    budget_seconds: float

    def deadline(self) -> float:
        """When whatever is asked now has to be answered, by the loop's clock."""
        return asyncio.get_running_loop().time() + self.budget_seconds

    async def verdict(self, passages: Sequence[Passage], deadline: float) -> tuple[Verdict, bool]:
        """Its verdict on the last of the passages, and whether it judged at all: a tenant may let a failure pass."""
        if not passages[-1].text.strip():
            return NOTHING_FOUND, True
        verdict, outcome = await _asked(self.judge, passages, NOTHING_FOUND, self.wishes, deadline)
        metrics.ESCALATIONS.labels(self.judge.layer, "answer", outcome).inc()
        return verdict, outcome == JUDGED


class Escalation:
    """The way to the slower layers."""

    def __init__(
        self, second_look: SecondLook | None, judges: Sequence[Judge], budgets: Budgets, chance: random.Random
    ) -> None:
        """`judges` in the order in which they are asked, after the second look, which needs no tenant's wish."""
        self._second_look = second_look
        self._judges = judges
        self._budgets = budgets
        self._chance = chance

    @property
    def layers(self) -> list[str]:
        """Those that are there."""
        return [*([SECOND_LOOK] if self._second_look else []), *(judge.layer for judge in self._judges)]

    def of_answer(self, wishes: Wishes, *, prompt_unsure: bool) -> AnswerJudge | None:
        """What judges an answer beside its rules: our own model, where it is wished for and there is a reason."""
        judge = next((each for each in self._judges if each.layer in wishes.layers and each.destination is None), None)
        if judge is None or not (prompt_unsure or self._chance.random() < wishes.sampled_share):
            return None
        return AnswerJudge(judge, wishes, self._budgets.of(wishes))

    async def judged(self, passages: Sequence[Passage], verdict: Verdict, wishes: Wishes) -> Verdict:
        """The verdict of the quick layers, or a stricter one."""
        budget = self._budgets.of(wishes)
        deadline = asyncio.get_running_loop().time() + budget
        if self._second_look:
            verdict = await self._second_look.judged(passages, verdict, budget)
        wanted = [judge for judge in self._judges if judge.layer in wishes.layers]
        if not wanted or not any(each.text.strip() for each in passages):
            return verdict
        sampled = self._chance.random() < wishes.sampled_share
        for judge in wanted:
            reason = _reason(verdict, sampled=sampled)
            if reason is None:
                break
            if (barrier := _barrier(judge, verdict, wishes)) is not None:
                metrics.ESCALATIONS.labels(judge.layer, reason, barrier).inc()
                verdict = _with(verdict, [note(judge.layer, f"refused.{barrier}")])
                continue
            verdict, outcome = await _asked(judge, passages, verdict, wishes, deadline)
            metrics.ESCALATIONS.labels(judge.layer, reason, outcome).inc()
        return verdict


def is_unsure(verdict: Verdict) -> bool:
    """Whether something was found that is near to what is refused."""
    return any(found.category in UNSURE for found in verdict.findings)


def _reason(verdict: Verdict, *, sampled: bool) -> str | None:
    """Why a text goes on: something was found and not refused, or chance; None when it need not."""
    if verdict.action > Action.MASK:
        return None
    if is_unsure(verdict):
        return "unsure"
    return "sampled" if sampled else None


def _barrier(judge: Judge, verdict: Verdict, wishes: Wishes) -> str | None:
    """Why a layer may not see the text."""
    there, cargo = judge.destination, _cargo(verdict, wishes)
    if there is None:
        return None
    if any(barriers(there.region, there.data_classes, cargo)):
        return "cross_border" if cargo.data_class in there.data_classes else "data_class"
    return "masked" if verdict.action is Action.MASK else None


def _cargo(verdict: Verdict, wishes: Wishes) -> Cargo:
    """The text as the rule of what may leave sees it."""
    return Cargo(egress.DataClass[verdict.data_class.name], wishes.residency)


async def _asked(
    judge: Judge, passages: Sequence[Passage], verdict: Verdict, wishes: Wishes, deadline: float
) -> tuple[Verdict, str]:
    """The verdict with what one layer adds, and what became of asking it."""
    started = time.perf_counter()
    try:
        async with asyncio.timeout_at(deadline):
            found = await judge.findings(passages, _cargo(verdict, wishes))
    except (JudgeFailed, TimeoutError) as error:
        log.warning("escalation_failed", layer=judge.layer, error=str(error) or type(error).__name__)
        return _failed(judge, _timed(judge, verdict, started), wishes), GAVE_NONE
    return _with(_timed(judge, verdict, started), found), JUDGED


def _failed(judge: Judge, verdict: Verdict, wishes: Wishes) -> Verdict:
    """An error is never an allow, unless the tenant says so for this layer; either way the verdict says so."""
    if judge.layer in wishes.fail_open:
        return _with(verdict, [note(judge.layer, FAILED_OPEN)])
    return undecided(verdict.layer_seconds, *verdict.findings, note(judge.layer, FAILED))


def _with(verdict: Verdict, findings: Sequence[Finding]) -> Verdict:
    merged = merge([*verdict.findings, *findings], verdict.layer_seconds)
    return merged.at_least(verdict.data_class)


def _timed(judge: Judge, verdict: Verdict, started: float) -> Verdict:
    return replace(verdict, layer_seconds={**verdict.layer_seconds, judge.layer: time.perf_counter() - started})
