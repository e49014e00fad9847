"""How a request would be routed, and why: the same rules as routing, every reason told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from services.router.constraints import Exclusion, exclusions
from services.router.decision import Decider
from services.router.deployment import Deployment
from services.router.preferences import Source, StrategyName
from services.router.ranking import Demand, Ranked
from services.router.rules import Ruling


@dataclass(frozen=True, slots=True)
class Candidate:
    """A deployment of the model asked for."""

    deployment: Deployment
    reasons: Sequence[str]
    """Everything that keeps it out."""
    pause: str = ""
    """Why it would be passed over for now; empty when it would not."""
    ranked: Ranked | None = None
    """What its place was decided by; None when it is left out."""
    first_token_seconds: float = 0.0


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
    """Explains what `decider` decides."""

    decider: Decider
    seconds_until_free: Callable[[Deployment], float]
    first_token_seconds: Callable[[Deployment], float]

    def explain(self, demand: Demand, *, everything: bool) -> Explanation:
        """Explain a request; deployments the caller's policy does not name are told only with `everything`.

        Raises:
            ModelNotFound, FieldInvalid: If no deployment could answer it whoever asks.
        """
        serving = self.decider.serving(demand)
        ruling = self.decider.ruling(demand)
        excluded = {
            each.name: list(exclusions(each, demand.limits, demand.needs, ruling.objections)) for each in serving
        }
        kept = [each for each in serving if not excluded[each.name]]
        name, source = self.decider.strategy(demand, ruling)
        asked = [self._asked(each) for each in self.decider.ranked(demand, kept, ruling)]
        told = (each for each in serving if everything or each.name in demand.limits.deployments)
        return Explanation(name, source, ruling, [*asked, *_left_out(told, excluded)])

    def _asked(self, ranked: Ranked) -> Candidate:
        deployment = ranked.deployment
        seconds = self.seconds_until_free(deployment)
        pause = f"failed lately; left alone for another {seconds:.0f} s" if seconds else ""
        return Candidate(deployment, (), pause, ranked, self.first_token_seconds(deployment))


def _left_out(serving: Iterator[Deployment], excluded: Mapping[str, Sequence[Exclusion]]) -> Iterator[Candidate]:
    for deployment in serving:
        if reasons := excluded[deployment.name]:
            yield Candidate(deployment, [exclusion.why for exclusion in reasons])
