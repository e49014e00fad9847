"""Which deployments may answer: what the caller's policy and data forbid, and what the request needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import TypeAlias

from meshkit.egress import Cargo, DataClass, Residency, barriers
from meshkit.errors import ContextTooLong, FieldInvalid, MeshError, ModelNotAllowed, RegionNotAllowed
from services.router.deployment import Capability, Deployment
from services.router.needs import Needs

FIELDS = {Capability.TOOLS: "tools", Capability.JSON_SCHEMA: "response_format", Capability.VISION: "messages"}

Objections: TypeAlias = Mapping[str, Sequence[str]]
"""Why rules leave deployments out, by name."""
NO_OBJECTIONS: Objections = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be chosen; a deployment outside these is never called, on any path."""

    deployments: frozenset[str]
    data_class: DataClass
    residency: Residency

    @property
    def cargo(self) -> Cargo:
        """What would be sent."""
        return Cargo(self.data_class, self.residency)


class Stage(IntEnum):
    """What kept a deployment out, in the order of asking."""

    POLICY = 1
    RULE = 2
    EGRESS = 3
    CAPABILITY = 4
    CONTEXT = 5


@dataclass(frozen=True, slots=True)
class Exclusion:
    """Why a deployment may not or cannot answer."""

    deployment: Deployment
    stage: Stage
    why: str
    missing: Capability | None = None


def prohibitions(deployment: Deployment, limits: Limits) -> Iterator[Exclusion]:
    """Everything that forbids sending the caller's data to `deployment`."""
    if deployment.name not in limits.deployments:
        yield Exclusion(deployment, Stage.POLICY, "is not among the deployments allowed for this caller")
    for why in barriers(deployment.region, deployment.data_classes, limits.cargo):
        yield Exclusion(deployment, Stage.EGRESS, why)


def shortcomings(deployment: Deployment, needs: Needs) -> Iterator[Exclusion]:
    """Everything for which `deployment` cannot answer the request."""
    for capability in sorted(needs.capabilities - deployment.capabilities):
        yield Exclusion(deployment, Stage.CAPABILITY, f"cannot do {capability}", capability)
    if needs.least_context_tokens > deployment.context_tokens:
        yield Exclusion(deployment, Stage.CONTEXT, f"holds {deployment.context_tokens} tokens")


def exclusions(
    deployment: Deployment, limits: Limits, needs: Needs, objections: Objections = NO_OBJECTIONS
) -> Iterator[Exclusion]:
    """Everything that keeps `deployment` out."""
    yield from prohibitions(deployment, limits)
    for why in objections.get(deployment.name, ()):
        yield Exclusion(deployment, Stage.RULE, why)
    yield from shortcomings(deployment, needs)


def forbidden(deployment: Deployment, limits: Limits) -> Exclusion | None:
    """Why the caller's data may not go to `deployment`; None when it may."""
    return next(prohibitions(deployment, limits), None)


def eligible(
    model: str,
    serving: Sequence[Deployment],
    limits: Limits,
    needs: Needs,
    objections: Objections = NO_OBJECTIONS,
) -> list[Deployment]:
    """The deployments that may and can answer, in the order given; `objections` are those of the rules.

    Raises:
        ModelNotAllowed, RegionNotAllowed, FieldInvalid, ContextTooLong: If none is left; the message names what
            excluded each, the type what excluded those that came furthest.
    """
    excluded = [next(exclusions(deployment, limits, needs, objections), None) for deployment in serving]
    kept = [deployment for deployment, exclusion in zip(serving, excluded, strict=True) if exclusion is None]
    if kept:
        return kept
    raise _refusal(model, [exclusion for exclusion in excluded if exclusion], limits, needs)


def _refusal(model: str, excluded: list[Exclusion], limits: Limits, needs: Needs) -> MeshError:
    whys = "; ".join(f"{exclusion.deployment.name} {exclusion.why}" for exclusion in excluded)
    furthest = max(excluded, key=lambda exclusion: exclusion.stage)
    match furthest.stage:
        case Stage.POLICY | Stage.RULE:
            return ModelNotAllowed(f"The policy allows no deployment of {model!r}: {whys}.", model=model)
        case Stage.EGRESS:
            return RegionNotAllowed(
                f"No deployment of {model!r} may process this request: {whys}.",
                model=model,
                data_class=limits.data_class,
                residency=limits.residency,
            )
        case Stage.CAPABILITY:
            field = FIELDS[furthest.missing] if furthest.missing else "model"
            return FieldInvalid(field, f"no allowed deployment of {model!r} can answer this: {whys}")
        case Stage.CONTEXT:
            return _too_long(model, excluded, needs, whys)


def _too_long(model: str, excluded: list[Exclusion], needs: Needs, whys: str) -> ContextTooLong:
    limit = max(exclusion.deployment.context_tokens for exclusion in excluded if exclusion.stage is Stage.CONTEXT)
    asked = needs.least_context_tokens
    return ContextTooLong(
        f"Prompt and answer take at least {asked} tokens, more than fit {model!r}: {whys}. "
        "Shorten the messages or lower max_tokens.",
        model=model,
        limit=str(limit),
        asked=str(asked),
    )
