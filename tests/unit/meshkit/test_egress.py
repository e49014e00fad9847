"""What may leave for where."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY

from meshkit.egress import Cargo, DataClass, Destination, Region, Residency
from meshkit.errors import EgressRefused

ANYTHING = frozenset(DataClass)
AT_HOME = Cargo(DataClass.INTERNAL, Residency.RUSSIA)


def refusals(name: str) -> float:
    return REGISTRY.get_sample_value("llmmesh_egress_refusals_total", {"destination": name}) or 0


def test_what_is_allowed_passes_and_is_not_counted():
    Destination("near", Region.RUSSIA, ANYTHING).admit(AT_HOME, "https://llm.api.cloud.yandex.net/v1/completion")
    assert refusals("near") == 0


@pytest.mark.parametrize(
    ("region", "classes", "why"),
    [
        (Region.EU, ANYTHING, "processes data in region eu"),
        (Region.LOCAL, frozenset({DataClass.PUBLIC}), "may not hold internal data"),
    ],
)
def test_what_is_forbidden_is_refused_told_and_counted(region, classes, why):
    before = refusals("far")
    with pytest.raises(EgressRefused, match=why) as caught:
        Destination("far", region, classes).admit(AT_HOME)
    assert caught.value.metadata == {"destination": "far", "data_class": "internal", "residency": "russia"}
    assert refusals("far") == before + 1


def test_a_well_known_host_is_where_it_is_whatever_the_configuration_says():
    claimed = Destination("claimed", Region.RUSSIA, ANYTHING)
    with pytest.raises(EgressRefused, match="region global"):
        claimed.admit(AT_HOME, "https://dashscope.aliyuncs.com/compatible-mode/v1/chat/completions")
