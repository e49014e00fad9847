"""Deployments and prompts the router's tests are about."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from meshkit.egress import DataClass, Region, Residency
from services.router.constraints import Limits
from services.router.deployment import Capability
from services.router.endpoints import OpenAIDeployment

MakeDeployment = Callable[..., OpenAIDeployment]


@pytest.fixture
def deployment() -> MakeDeployment:
    """Make a deployment of model "m" that holds everything and can do everything, unless told otherwise."""

    def make(name: str = "cloud/m", **changes: object) -> OpenAIDeployment:
        fields: dict[str, object] = {
            "adapter": "openai",
            "name": name,
            "provider": "cloud",
            "base_url": "https://cloud.example/v1",
            "model": "m-2",
            "serves": "m",
            "region": Region.GLOBAL,
            "data_classes": list(DataClass),
            "context_tokens": 1000,
            "capabilities": list(Capability),
        }
        return OpenAIDeployment.model_validate({**fields, **changes})

    return make


@pytest.fixture
def limits() -> Callable[..., Limits]:
    """Make limits that allow the deployments named, for public data anywhere, unless told otherwise."""

    def make(*names: str, data_class: DataClass = DataClass.PUBLIC, residency: Residency = Residency.GLOBAL) -> Limits:
        return Limits(frozenset(names), data_class, residency)

    return make
