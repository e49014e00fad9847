"""Rules of the routes file: what is forbidden, required or preferred, and when."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, Any, Self

import orjson
from pydantic import AfterValidator, Field, model_validator

from meshkit.egress import Region
from meshkit.log import get_logger
from services.router.deployment import Deployment, Name, Strict
from services.router.expressions import ConditionFailed, compiled
from services.router.measures import RULE_FAILURES
from services.router.preferences import StrategyName
from services.router.ranking import Demand

REMEMBERED_RULINGS = 4096
LARGEST_METADATA_BYTES = 16 * 1024

log = get_logger()


def _compilable(text: str) -> str:
    compiled(text)
    return text


class Selection(Strict):
    """Deployments by any of their names, providers and regions."""

    deployments: frozenset[Name] = frozenset()
    providers: frozenset[Name] = frozenset()
    regions: frozenset[Region] = frozenset()

    @model_validator(mode="after")
    def _selects(self) -> Self:
        if not (self.deployments or self.providers or self.regions):
            raise ValueError("must name deployments, providers or regions")
        return self

    def holds(self, deployment: Deployment) -> bool:
        """Whether `deployment` is one of them."""
        return (
            deployment.name in self.deployments
            or deployment.provider in self.providers
            or deployment.region in self.regions
        )


class Rule(Strict):
    """One entry of the section `rules`."""

    name: str = Field(min_length=1, max_length=128)
    """Told in explanations, errors and logs."""
    when: Annotated[str, AfterValidator(_compilable)]
    """The condition, in CEL."""
    forbid: Selection | None = None
    """These are left out."""
    require: Selection | None = None
    """All others are left out."""
    prefer: Selection | None = None
    """These are asked before all others."""
    strategy: StrategyName | None = None
    """Orders the deployments, whatever the tenant, the model or the tier says."""

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if not (self.forbid or self.require or self.prefer or self.strategy):
            raise ValueError("must forbid, require, prefer or set a strategy")
        return self

    @property
    def restricts(self) -> bool:
        """Whether it leaves anything out."""
        return bool(self.forbid or self.require)

    def objection(self, deployment: Deployment) -> str | None:
        """Why the rule leaves `deployment` out, if it does."""
        if self.forbid and self.forbid.holds(deployment):
            return f"is forbidden by the rule {self.name!r}"
        if self.require and not self.require.holds(deployment):
            return f"is not what the rule {self.name!r} requires"
        return None


@dataclass(frozen=True, slots=True, eq=False)
class Ruling:
    """What the rules whose condition holds say together. There is one for each set of such rules."""

    objections: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Why each deployment is left out; those that are not do not stand here."""
    preferred: frozenset[str] = frozenset()
    strategy: StrategyName | None = None
    """The first one set."""
    rules: Sequence[str] = ()
    """Their names."""


class RuleBook:
    """The rules of one routes file over its deployments."""

    def __init__(self, rules: Sequence[Rule], deployments: Sequence[Deployment]) -> None:
        self._rules = rules
        self._deployments = deployments
        self._conditions = [compiled(rule.when) for rule in rules]
        self._asked = sorted({name for condition in self._conditions for name in condition.variables})
        self._ruling = lru_cache(REMEMBERED_RULINGS)(self._judged)
        self._of_matches = lru_cache(REMEMBERED_RULINGS)(self._combined)

    def ruling(self, demand: Demand) -> Ruling:
        """What the rules say of a request; remembered for the next one that is alike."""
        return self._ruling(tuple([FACTS[name](demand) for name in self._asked]))

    def _judged(self, facts: tuple[Hashable, ...]) -> Ruling:
        values = {name: _plain(name, fact) for name, fact in zip(self._asked, facts, strict=True)}
        return self._of_matches(tuple(self._matches(values)))

    def _matches(self, values: Mapping[str, Any]) -> Iterator[bool]:
        """Whether each rule applies; one that cannot be told applies if it restricts: in doubt, data stays."""
        for rule, condition in zip(self._rules, self._conditions, strict=True):
            try:
                yield condition.holds(values)
            except ConditionFailed as failure:
                RULE_FAILURES.labels(rule.name).inc()
                log.warning("rule_failed", rule=rule.name, fault=str(failure), applied=rule.restricts)
                yield rule.restricts

    def _combined(self, matches: tuple[bool, ...]) -> Ruling:
        applied = [rule for rule, match in zip(self._rules, matches, strict=True) if match]
        objections = {each.name: list(_objections(applied, each)) for each in self._deployments}
        preferred = (each.name for each in self._deployments for rule in applied if _prefers(rule, each))
        return Ruling(
            {name: whys for name, whys in objections.items() if whys},
            frozenset(preferred),
            next((rule.strategy for rule in applied if rule.strategy), None),
            [rule.name for rule in applied],
        )


def unknown_names(rules: Iterable[tuple[int, Rule]], deployments: Sequence[Deployment]) -> Iterator[str]:
    """Names in rules that no deployment has."""
    names = {each.name for each in deployments}
    providers = {each.provider for each in deployments}
    for index, rule in rules:
        for effect, selection in (("forbid", rule.forbid), ("require", rule.require), ("prefer", rule.prefer)):
            if selection is None:
                continue
            for kind, unknown in (
                ("deployments", selection.deployments - names),
                ("providers", selection.providers - providers),
            ):
                yield from (f"rules[{index}].{effect}.{kind}: there is no {each!r}" for each in sorted(unknown))


def _objections(rules: Iterable[Rule], deployment: Deployment) -> Iterator[str]:
    return filter(None, (rule.objection(deployment) for rule in rules))


def _prefers(rule: Rule, deployment: Deployment) -> bool:
    return rule.prefer is not None and rule.prefer.holds(deployment)


def _metadata(demand: Demand) -> tuple[tuple[str, str], ...]:
    """The texts among the caller's own `metadata`."""
    text = demand.prompt.options.extra_json.get("metadata", "")
    if not text or len(text) > LARGEST_METADATA_BYTES:
        return ()
    given = orjson.loads(text)
    if not isinstance(given, dict):
        return ()
    return tuple(sorted((name, value) for name, value in given.items() if isinstance(value, str)))


def _plain(name: str, fact: Hashable) -> Any:
    """A fact in the shape its variable has: facts are tuples only to be remembered by."""
    if not isinstance(fact, tuple):
        return fact
    return dict(fact) if name == "request.metadata" else list(fact)


FACTS: Mapping[str, Callable[[Demand], Hashable]] = {
    "tenant.id": lambda demand: demand.caller.tenant_id,
    "tenant.tier": lambda demand: str(demand.caller.tier or ""),
    "tenant.tags": lambda demand: demand.caller.tags,
    "data_class": lambda demand: str(demand.limits.data_class),
    "residency": lambda demand: str(demand.limits.residency),
    "request.model": lambda demand: demand.model,
    "request.embeds": lambda demand: demand.needs.embeds,
    "request.input_tokens": lambda demand: demand.needs.input_tokens,
    "request.max_output_tokens": lambda demand: demand.needs.max_output_tokens,
    "request.needs": lambda demand: tuple(sorted(map(str, demand.needs.capabilities))),
    "request.metadata": _metadata,
}
"""Where each variable of a condition comes from."""
