"""How a request would be routed, and why: the same rules as routing, every reason told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from services.router.constraints import Exclusion, exclusions
from services.router.deployment import Deployment
from services.router.fleet import Roster
from services.router.preferences import Source, StrategyName
from services.router.ranking import Demand, Ranking, Shortlist
from services.router.rules import Ruling


@dataclass(frozen=True, slots=True)
class Score:
    """What the place of a deployment was decided by, beside what it says of itself."""

    value: float
    cost: float
    first_token_seconds: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """A deployment of the model asked for."""

    deployment: Deployment
    reasons: Sequence[str]
    """Everything that keeps it out."""
    pause: str = ""
    """Why it would be passed over for now; empty when it would not."""
    score: Score | None = None
    """None when it is left out."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """How a request would be routed now."""

    strategy: StrategyName
    source: Source
    ruling: Ruling
    candidates: Sequence[Candidate]
    """Those that would be asked, in order; then those left out."""


@dataclass(frozen=True, slots=True)
class Explainer:
    """Explains what the fleet in force decides."""

    roster: Roster
    seconds_until_free: Callable[[Deployment], float]
    first_token_seconds: Callable[[Deployment], float]

    def explain(self, demand: Demand, *, everything: bool) -> Explanation:
        """Explain a request; deployments the caller's policy does not name are told only with `everything`.

        Raises:
            ModelNotFound, FieldInvalid: If no deployment could answer it whoever asks.
        """
        decider = self.roster.fleet.decider
        serving, ruling = decider.serving(demand), decider.ruling(demand)
        excluded = {
            each.name: list(exclusions(each, demand.limits, demand.needs, ruling.objections)) for each in serving
        }
        kept = [each for each in serving if not excluded[each.name]]
        name, source = decider.strategy(demand, ruling)
        ranking = decider.ranked(demand, Shortlist.of(kept, ruling.preferred, demand.firsts), ruling)
        asked = [self._asked(ranking, place) for place in ranking.order]
        told = (each for each in serving if everything or each.name in demand.limits.deployments)
        return Explanation(name, source, ruling, [*asked, *_left_out(told, excluded)])

    def _asked(self, ranking: Ranking, place: int) -> Candidate:
        deployment = ranking.candidates[place]
        seconds = self.seconds_until_free(deployment)
        pause = f"failed lately; left alone for another {seconds:.0f} s" if seconds else ""
        score = Score(ranking.scores[place], ranking.costs[place], self.first_token_seconds(deployment))
        return Candidate(deployment, (), pause, score)


def _left_out(serving: Iterator[Deployment], excluded: Mapping[str, Sequence[Exclusion]]) -> Iterator[Candidate]:
    for deployment in serving:
        if reasons := excluded[deployment.name]:
            yield Candidate(deployment, [exclusion.why for exclusion in reasons])
