"""Compliance packs: what counts as a violation, read from YAML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from services.billing.audit.event import SEVERITIES, Event, Finding
from services.billing.compliance.violation import Violation

BASE = "base"
"""The pack of every tenant, chosen or not."""
DEFINITIONS = Path(__file__).parent / "definitions"

Severity = Literal["low", "medium", "high", "critical"]


class Count(BaseModel):
    """One kind of violation: a finding that fits, or a request that ended in a way that fits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Annotated[str, Field(pattern="^[a-z_]+$")]
    """What it is called."""
    severity: Severity
    """How bad it is; a finding that is worse stays worse."""
    findings: tuple[str, ...] = ()
    """Categories of findings that count."""
    rules: tuple[str, ...] = ()
    """Rules that count, with * for any characters."""
    least_severity: Severity = "low"
    """Findings below do not count."""
    directions: tuple[Literal["input", "output"], ...] = ("input", "output")
    """Sides that count."""
    reasons: tuple[str, ...] = ()
    """Refusals of requests that count."""
    data_classes: tuple[str, ...] = ()
    """Classes of data whose refusals count; empty means all."""
    unguarded: bool = False
    """Whether an answer counts that the guard could not judge."""

    @model_validator(mode="after")
    def _counts_something(self) -> Count:
        if not (self.findings or self.rules or self.reasons or self.unguarded):
            raise ValueError("counts nothing: give findings, rules, reasons or unguarded")
        return self

    def fits(self, found: Finding) -> bool:
        """Whether a finding counts."""
        named = found.category in self.findings or any(fnmatchcase(found.rule, rule) for rule in self.rules)
        return named and found.direction in self.directions and _rank(found.severity) >= _rank(self.least_severity)

    def fits_request(self, event: Event) -> bool:
        """Whether the request itself counts."""
        refused = event.reason in self.reasons and (not self.data_classes or event.data_class in self.data_classes)
        return refused or (self.unguarded and event.unguarded)


class Pack(BaseModel):
    """What one law or standard counts; of kinds that a finding fits, the first one names it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    """Name for people."""
    violations: Annotated[tuple[Count, ...], Field(min_length=1)]
    """Kinds of violations, the most specific first."""


@cache
def pack_names() -> tuple[str, ...]:
    """What the shipped packs are called."""
    return tuple(path.stem for path in sorted(DEFINITIONS.glob("*.yaml")))


class Packs:
    """All packs there are."""

    def __init__(self, packs: Mapping[str, Pack]) -> None:
        self.all = packs

    @classmethod
    def read(cls, directory: Path = DEFINITIONS) -> Packs:
        """Read every *.yaml of a directory; a pack is called as its file is."""
        return cls({path.stem: _pack(path) for path in sorted(directory.glob("*.yaml"))})

    def violations(self, event: Event, chosen: Sequence[str]) -> Iterator[Violation]:
        """What a tenant's packs count of an event; each finding once, as the strictest pack sees it."""
        if not (event.findings or event.reason or event.unguarded):
            return
        names = [name for name in (BASE, *chosen) if name in self.all]
        for found in event.findings:
            counted = {name: count for name in names if (count := self._first(name, found))}
            if counted:
                yield _violation(event, counted, found)
        for name in names:
            for count in self.all[name].violations:
                if count.fits_request(event):
                    yield _violation(event, {name: count})

    def _first(self, name: str, found: Finding) -> Count | None:
        return next((count for count in self.all[name].violations if count.fits(found)), None)


def _violation(event: Event, counted: Mapping[str, Count], found: Finding | None = None) -> Violation:
    strictest = max(counted.values(), key=lambda count: _rank(count.severity))
    return Violation(
        tenant_id=event.tenant_id,
        request_id=event.request_id,
        key_id=event.key_id,
        model=event.model,
        create_time=event.create_time,
        type=strictest.type,
        severity=max(strictest.severity, found.severity if found else "low", key=_rank),
        packs=tuple(counted),
        outcome=event.outcome,
        rule=found.rule if found else "",
        direction=found.direction if found else "",
        context=found.masked_context if found else "",
    )


def _rank(severity: str) -> int:
    return SEVERITIES.index(severity)


def _pack(path: Path) -> Pack:
    return Pack.model_validate(yaml.load(path.read_text("utf-8"), yaml.CSafeLoader))
