"""Who answers a request: constraints first, ranking second."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from meshkit.errors import FieldInvalid, ModelNotFound
from services.router.constraints import Limits, eligible
from services.router.deployment import Capability, Deployment
from services.router.hedging import may_be_asked_twice
from services.router.preferences import Hedge, Source, StrategyName, StrategyTable
from services.router.ranking import Demand, Price, Ranking, Shortlist, Strategy, ranked
from services.router.rules import RuleBook, Ruling

REMEMBERED_SHORTLISTS = 1024
"""Of at most as many pointers as there are deployments each."""

Kind: TypeAlias = tuple[str, Limits, frozenset[Capability], int, Ruling, frozenset[str]]
"""All that decides who may and can answer: model, limits, capabilities, context, the rules that apply, the variant."""


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
        self._contexts = {
            model: sorted({each.context_tokens for each in all_}) for model, all_ in self._serving.items()
        }
        self._shortlists: dict[Kind, Shortlist] = {}

    def order(self, demand: Demand) -> list[Deployment]:
        """Who may and can answer, in the order of asking.

        Raises:
            MeshError: Whose type says why nobody may or can.
        """
        ruling = self.ruling(demand)
        return self.ranked(demand, self.shortlist(demand, ruling), ruling).deployments()

    def shortlist(self, demand: Demand, ruling: Ruling) -> Shortlist:
        """Who may and can answer; raises as `order` does."""
        serving, firsts = self.serving(demand), demand.firsts
        kind = demand.model, demand.limits, demand.needs.capabilities, self._least_context(demand), ruling, firsts
        shortlist = self._shortlists.get(kind)
        if shortlist is None:
            kept = eligible(demand.model, serving, demand.limits, demand.needs, ruling.objections)
            shortlist = self._remembered(kind, Shortlist.of(kept, ruling.preferred, firsts))
        return shortlist

    def ruling(self, demand: Demand) -> Ruling:
        """What the rules say of a request."""
        return self._rules.ruling(demand)

    def strategy(self, demand: Demand, ruling: Ruling) -> tuple[StrategyName, Source]:
        """The strategy for a request, and who chose it."""
        if ruling.strategy is not None:
            return ruling.strategy, Source.RULE
        return self._table.chosen(demand.model, demand.caller)

    def ranked(self, demand: Demand, shortlist: Shortlist, ruling: Ruling) -> Ranking:
        """The order of asking."""
        name, _ = self.strategy(demand, ruling)
        return ranked(self._strategies[name], demand, shortlist, self._prices)

    def hedge(self, demand: Demand) -> Hedge | None:
        """When a second deployment is asked beside a silent one; None for never."""
        hedge = self._table.hedge(demand.model, demand.caller)
        return hedge if hedge and not demand.alone and may_be_asked_twice(demand.prompt) else None

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

    def _least_context(self, demand: Demand) -> int:
        """The smallest context that holds the request, 0 when none does: requests between two of them are alike."""
        contexts = self._contexts[demand.model]
        place = bisect_left(contexts, demand.needs.least_context_tokens)
        return contexts[place] if place < len(contexts) else 0

    def _remembered(self, kind: Kind, shortlist: Shortlist) -> Shortlist:
        if len(self._shortlists) >= REMEMBERED_SHORTLISTS:
            self._shortlists.clear()
        self._shortlists[kind] = shortlist
        return shortlist
