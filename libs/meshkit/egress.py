"""What may leave for where: the one rule that every call out of the mesh with a caller's data passes.

It is asked twice: when somebody chooses a destination, and again, by the client that is about to send, of the host it
sends to. The second never refuses unless the first was wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from urllib.parse import urlsplit

from prometheus_client import Counter

from llmmesh.chat.v1 import chat_pb2
from meshkit.errors import EgressRefused
from meshkit.log import get_logger

REFUSALS = Counter(
    "llmmesh_egress_refusals_total",
    "Calls out of the mesh stopped at the last moment; any is a fault of ours.",
    ["destination"],
)

log = get_logger()


class Region(StrEnum):
    """Where data is processed."""

    LOCAL = "local"
    RUSSIA = "russia"
    EU = "eu"
    GLOBAL = "global"


class DataClass(StrEnum):
    """How sensitive data is, from free to strictest."""

    PUBLIC = "public"
    INTERNAL = "internal"
    CONFIDENTIAL = "confidential"
    SENSITIVE = "sensitive"


class Residency(StrEnum):
    """Where data may be processed."""

    GLOBAL = "global"
    RUSSIA = "russia"
    EU = "eu"


RESIDENCIES = {
    chat_pb2.DATA_RESIDENCY_UNSPECIFIED: Residency.GLOBAL,
    chat_pb2.DATA_RESIDENCY_GLOBAL: Residency.GLOBAL,
    chat_pb2.DATA_RESIDENCY_RUSSIA: Residency.RUSSIA,
    chat_pb2.DATA_RESIDENCY_EU: Residency.EU,
}
"""What requests say of it."""

REGIONS = {
    Residency.GLOBAL: frozenset(Region),
    Residency.RUSSIA: frozenset({Region.LOCAL, Region.RUSSIA}),
    Residency.EU: frozenset({Region.LOCAL, Region.EU}),
}

KNOWN_REGIONS = {
    "api.openai.com": Region.GLOBAL,
    "dashscope.aliyuncs.com": Region.GLOBAL,
    "dashscope-intl.aliyuncs.com": Region.GLOBAL,
    "dashscope-us.aliyuncs.com": Region.GLOBAL,
    "gigachat.devices.sberbank.ru": Region.RUSSIA,
    "api.giga.chat": Region.RUSSIA,
    "llm.api.cloud.yandex.net": Region.RUSSIA,
    "ai.api.cloud.yandex.net": Region.RUSSIA,
    "foundation-models.api.cloud.ru": Region.RUSSIA,
}
"""Where well-known hosts process data, whatever anybody's configuration says."""


@dataclass(frozen=True, slots=True)
class Cargo:
    """A caller's data on its way."""

    data_class: DataClass
    residency: Residency


@dataclass(frozen=True, slots=True)
class Destination:
    """Where data may be sent, and what may be sent there."""

    name: str
    region: Region
    data_classes: frozenset[DataClass]

    def admit(self, cargo: Cargo, url: str = "") -> None:
        """Let `cargo` pass; `url` is the one about to be called, whose host decides the region where it is known.

        Raises:
            EgressRefused: If it may not; counted and logged.
        """
        region = known_region(url) or self.region
        for why in barriers(region, self.data_classes, cargo):
            raise refused(self.name, why, cargo)


def barriers(region: Region, data_classes: frozenset[DataClass], cargo: Cargo) -> Iterator[str]:
    """Everything that forbids sending `cargo` to a place in `region` that may hold `data_classes`."""
    if cargo.data_class not in data_classes:
        yield f"may not hold {cargo.data_class} data"
    if region not in REGIONS[cargo.residency]:
        yield f"processes data in region {region}, not allowed by residency {cargo.residency}"


@lru_cache(1024)
def known_region(url: str) -> Region | None:
    """Where the host of `url` processes data, if it is well known."""
    return KNOWN_REGIONS.get((urlsplit(url).hostname or "").rstrip("."))


def watch_refusals(destination: str) -> None:
    """Show how often `destination` was refused from 0 on: a count that appears at 1 is no increase to an alert."""
    REFUSALS.labels(destination)


def refused(destination: str, why: str, cargo: Cargo) -> EgressRefused:
    """The error of a call that was stopped, once it is counted and logged."""
    REFUSALS.labels(destination).inc()
    log.error("egress_refused", destination=destination, why=why, data_class=cargo.data_class)
    return EgressRefused(
        f"{destination!r} {why}: nothing was sent. Report the request id.",
        destination=destination,
        data_class=cargo.data_class,
        residency=cargo.residency,
    )
