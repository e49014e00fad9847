"""Shadows as experiments: how the copy of a request went, against how the request itself went."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

from meshkit.identity import Identity
from meshkit.lots import Unit
from services.router.deployment import Deployment, Shadow
from services.router.experiments.plan import Experiment, Variant
from services.router.experiments.treatment import Treatment, Use
from services.router.experiments.trials import Version, group_of

ORIGINAL, COPY = "original", "shadow"


@dataclass(frozen=True, slots=True)
class Shadowed:
    """A deployment that gets copies, with what they are measured under."""

    deployment: Deployment
    shadow: Shadow
    versions: tuple[Version, Version]
    """The originals, and the copies."""

    def treatments(self, asker: Identity) -> tuple[Treatment, Treatment]:
        """Under which a request and its copy are counted."""
        original, copy = self.versions
        group = group_of(original.experiment, asker.request_id)
        return _counted(original, group), _counted(copy, group)


def shadowed(deployments: Iterable[Deployment]) -> list[Shadowed]:
    """Those of the deployments that are shadows."""
    return [Shadowed(each, each.shadow, _versions(each, each.shadow)) for each in deployments if each.shadow]


def _versions(deployment: Deployment, shadow: Shadow) -> tuple[Version, Version]:
    experiment = Experiment(
        name=re.sub(r"[^A-Za-z0-9._-]", "-", f"shadow-{deployment.name}")[:64],
        model=deployment.serves,
        unit=Unit.REQUEST,
        share_percent=shadow.share_percent,
        tags=shadow.tags,
        variants=(Variant(name=ORIGINAL), Variant(name=COPY, deployments=(deployment.name,))),
    )
    definition = f"{deployment.name} {deployment.provider} {deployment.model} {deployment.serves}"
    digest = blake2b(definition.encode(), digest_size=6).hexdigest()
    original, copy = (
        Version(experiment, variant, None, f"{experiment.name}/{variant.name}@{digest}")
        for variant in experiment.variants
    )
    return original, copy


def _counted(version: Version, group: int) -> Treatment:
    return Treatment(version.name, Use.APPLIED, frozenset(), group)
