"""How a deployment that was away gets its share of requests back."""

from __future__ import annotations

from dataclasses import dataclass

ALL_PERCENT = 100


@dataclass(slots=True)
class StagedReturn:
    """Stages, each a share; one ends when it has lasted long enough and held enough whole answers."""

    percents: tuple[int, ...]
    stage_seconds: float
    answers_a_stage: int
    since: float
    """When the stage began."""
    _stage: int = 0
    _answers: int = 0
    _owed: int = 0
    """Hundredths of a request that the deployment may still be asked first."""

    @property
    def percent(self) -> int:
        """How many of a hundred requests the deployment gets first."""
        return self.percents[self._stage]

    def leads(self) -> bool:
        """Whether this request is one of the share: evenly spread, without chance."""
        self._owed += self.percent
        if self._owed < ALL_PERCENT:
            return False
        self._owed -= ALL_PERCENT
        return True

    def completed(self, now: float) -> bool:
        """Count a whole answer; whether it was the last of the last stage."""
        self._answers += 1
        if self._answers < self.answers_a_stage or now - self.since < self.stage_seconds:
            return False
        if self._stage + 1 == len(self.percents):
            return True
        self._stage += 1
        self._answers = 0
        self.since = now
        return False
