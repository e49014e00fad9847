"""Which strategy orders the deployments for whom."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pydantic import Field

from services.router.deployment import Name, Strict


class Tier(StrEnum):
    """What a tenant pays for."""

    FREE = "free"
    PRO = "pro"
    ENTERPRISE = "enterprise"


class StrategyName(StrEnum):
    """In what order deployments are asked."""

    CHEAPEST = "cheapest"
    BALANCED = "balanced"
    QUALITY = "quality"
    LATENCY = "latency"
    WEIGHTED = "weighted"
    LEARNED = "learned"


class Source(StrEnum):
    """Who chose a strategy."""

    RULE = "rule"
    TENANT = "tenant"
    MODEL = "model"
    TIER = "tier"
    DEFAULT = "default"


TIERS = {
    Tier.FREE: StrategyName.CHEAPEST,
    Tier.PRO: StrategyName.BALANCED,
    Tier.ENTERPRISE: StrategyName.QUALITY,
}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as far as choosing a deployment is concerned."""

    tenant_id: str = ""
    tier: Tier | None = None
    strategy: StrategyName | None = None
    """The tenant's own; None leaves it to the routes file."""
    tags: tuple[str, ...] = ()


class Hedge(Strict):
    """When a second deployment is asked beside one that keeps silent."""

    after_seconds: float | None = Field(default=None, ge=0, le=600)
    """How long after the call; without it, once the first is slower than 95 of its last hundred calls."""
    tags: frozenset[str] = frozenset()
    """Only for tenants with one of these tags; empty for all."""


class StrategyTable(Strict):
    """The section `strategies` of the routes file."""

    default: StrategyName = StrategyName.CHEAPEST
    """For tenants without a tier."""
    tiers: dict[Tier, StrategyName] = Field(default_factory=dict)
    """For the tenants of a tier."""
    models: dict[Name, StrategyName] = Field(default_factory=dict)
    """For everybody who asks for a public model, whatever the tier."""
    hedges: dict[Name, Hedge] = Field(default_factory=dict)
    """Public models of which two deployments may be asked."""
    quality_share: float = Field(default=0.5, ge=0, le=1)
    """How much quality counts in `balanced`; the rest is cost."""

    def chosen(self, model: str, caller: Caller) -> tuple[StrategyName, Source]:
        """The caller's own, else the model's, else the tier's, else the default."""
        if caller.strategy is not None:
            return caller.strategy, Source.TENANT
        if (of_model := self.models.get(model)) is not None:
            return of_model, Source.MODEL
        if caller.tier is None:
            return self.default, Source.DEFAULT
        return self.tiers.get(caller.tier, TIERS[caller.tier]), Source.TIER

    def hedge(self, model: str, caller: Caller) -> Hedge | None:
        """Whether this caller's requests for the model may be put to two deployments, and when."""
        hedge = self.hedges.get(model)
        return hedge if hedge and (not hedge.tags or hedge.tags.intersection(caller.tags)) else None
