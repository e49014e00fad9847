"""Who answers a request: constraints first, ranking second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from meshkit.errors import FieldInvalid, ModelNotFound
from services.router.constraints import eligible
from services.router.deployment import Deployment
from services.router.preferences import Source, StrategyName, StrategyTable
from services.router.ranking import Demand, Price, Ranked, Strategy, ranked
from services.router.rules import RuleBook, Ruling


class Decider:
    """Chooses among the deployments of one routes file."""

    def __init__(
        self,
        deployments: Sequence[Deployment],
        table: StrategyTable,
        rules: RuleBook,
        strategies: Mapping[StrategyName, Strategy],
        prices: Mapping[str, Price],
    ) -> None:
        self._table = table
        self._rules = rules
        self._strategies = strategies
        self._prices = prices
        self._serving: dict[str, list[Deployment]] = {}
        for deployment in deployments:
            self._serving.setdefault(deployment.serves, []).append(deployment)

    def order(self, demand: Demand) -> list[Deployment]:
        """Who may and can answer, in the order of asking.

        Raises:
            MeshError: Whose type says why nobody may or can.
        """
        serving, ruling = self.serving(demand), self.ruling(demand)
        candidates = eligible(demand.model, serving, demand.limits, demand.needs, ruling.objections)
        return [each.deployment for each in self.ranked(demand, candidates, ruling)]

    def ruling(self, demand: Demand) -> Ruling:
        """What the rules say of a request."""
        return self._rules.ruling(demand)

    def strategy(self, demand: Demand, ruling: Ruling) -> tuple[StrategyName, Source]:
        """The strategy for a request, and who chose it."""
        if ruling.strategy is not None:
            return ruling.strategy, Source.RULE
        return self._table.chosen(demand.model, demand.caller)

    def ranked(self, demand: Demand, candidates: Sequence[Deployment], ruling: Ruling) -> list[Ranked]:
        """Candidates in the order of asking, each with what decided its place."""
        name, _ = self.strategy(demand, ruling)
        return ranked(self._strategies[name], demand, candidates, self._prices, ruling.preferred)

    def serving(self, demand: Demand) -> Sequence[Deployment]:
        """Every deployment of the model asked for.

        Raises:
            ModelNotFound: If there is none.
            FieldInvalid: If it is for something else.
        """
        model, serving = demand.model, self._serving.get(demand.model)
        if not serving:
            raise ModelNotFound(f"There is no model {model!r}: list the models to see their names.", model=model)
        if serving[0].embeds != demand.needs.embeds:
            kind = "an embedding" if serving[0].embeds else "a chat"
            raise FieldInvalid("model", f"{model!r} is {kind} model and cannot do this")
        return serving
