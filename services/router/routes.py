"""The routes file: which deployments there are. Every mistake in it is found at once."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from meshkit.reloading import FilesInvalid
from services.router.deployment import Deployment
from services.router.endpoints import AnyDeployment, HttpDeployment
from services.router.experiments.plan import Experiment, PromptTemplate, PromptTemplates, contradictions
from services.router.learned.bandit import Learning
from services.router.preferences import StrategyTable
from services.router.references import resolved, unset
from services.router.rules import Rule, unknown_names

SECTIONS = ("deployments", "strategies", "rules", "learning", "experiments", "prompts")
Section = TypeVar("Section", bound=BaseModel)

_deployment: TypeAdapter[Deployment] = TypeAdapter(AnyDeployment)

VERSION_DIGITS = 16


class RoutesInvalid(FilesInvalid):
    """The routes file cannot be used; its text lists every mistake with its place in the file."""

    def __init__(self, path: Path, mistakes: list[str]) -> None:
        lines = "".join(f"\n  {mistake}" for mistake in mistakes)
        super().__init__(f"{path}: {len(mistakes)} mistake(s):{lines}", mistakes)


@dataclass(frozen=True, slots=True)
class Routes:
    """What a routes file says."""

    deployments: list[Deployment]
    """In the order of the file."""
    left_out: list[HttpDeployment]
    """The optional ones whose credential is not set."""
    strategies: StrategyTable
    """In what order they are asked."""
    rules: list[Rule]
    """What is forbidden, required or preferred, and when."""
    learning: Learning
    """How the strategy `learned` learns."""
    experiments: list[Experiment] = field(default_factory=list)
    """Between which variants requests are split."""
    prompts: dict[str, PromptTemplate] = field(default_factory=dict)
    """Templates that variants name."""
    version: str = ""
    """Names what the file says: the beginning of its SHA-256."""

    @property
    def answering(self) -> list[Deployment]:
        """The deployments that answer callers: all but the shadows."""
        return [each for each in self.deployments if each.shadow is None]


def load_routes(path: Path, environment: Mapping[str, str]) -> Routes:
    """Read a routes file.

    Raises:
        RoutesInvalid: If anything in it is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
        document = yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 - a SafeLoader
    except (OSError, ValueError, yaml.YAMLError) as fault:  # ValueError: of a date that does not exist
        raise RoutesInvalid(path, [_one_line(str(fault))]) from None
    read, mistakes = _read(document)
    everyone = [deployment for _, deployment in read]
    strategies = _strategies(document, {deployment.serves for deployment in everyone}, mistakes)
    rules = _listed(document, "rules", Rule, mistakes)
    mistakes.extend(unknown_names(rules, everyone))
    prompts = _section(document, "prompts", PromptTemplates, mistakes).root
    experiments = _listed(document, "experiments", Experiment, mistakes)
    mistakes.extend(contradictions(experiments, prompts, [each for each in everyone if each.shadow is None]))
    learning = _section(document, "learning", Learning, mistakes)
    left_out = [each for _, each in read if isinstance(each, HttpDeployment) and _is_left_out(each, environment)]
    kept = [(index, deployment) for index, deployment in read if deployment not in left_out]
    mistakes.extend(_unset(kept, environment))
    if not kept and not mistakes:
        mistakes.append("deployments: every one is optional and none has its credential")
    if mistakes:
        raise RoutesInvalid(path, mistakes)
    return Routes(
        [each.with_secrets(environment) if isinstance(each, HttpDeployment) else each for _, each in kept],
        left_out,
        strategies,
        [rule for _, rule in rules],
        learning,
        [experiment for _, experiment in experiments],
        prompts,
        hashlib.sha256(text.encode()).hexdigest()[:VERSION_DIGITS],
    )


def _read(document: Any) -> tuple[list[tuple[int, Deployment]], list[str]]:
    """The deployments that are well-formed, each with its place, and what is wrong with the others."""
    entries = document.get("deployments") if isinstance(document, dict) else None
    if not isinstance(entries, list) or not entries:
        return [], ["deployments: must be a list with at least one deployment"]
    mistakes = [f"{key}: unknown; the file holds {', '.join(SECTIONS)}" for key in document if key not in SECTIONS]
    read: list[tuple[int, Deployment]] = []
    for index, entry in enumerate(entries):
        try:
            read.append((index, _deployment.validate_python(entry)))
        except ValidationError as fault:
            mistakes.extend(_described(f"deployments[{index}]", fault, levels_left_out=1))
    return read, [*mistakes, *_clashes(read)]


def _strategies(document: Any, models: set[str], mistakes: list[str]) -> StrategyTable:
    """The section `strategies`; what is wrong with it is added to `mistakes`."""
    table = _section(document, "strategies", StrategyTable, mistakes)
    mistakes.extend(
        f"strategies.{part}.{model}: no deployment serves it"
        for part in ("models", "hedges")
        for model in getattr(table, part)
        if model not in models
    )
    return table


def _listed(document: Any, name: str, kind: type[Section], mistakes: list[str]) -> list[tuple[int, Section]]:
    """The well-formed entries of a section, each with its place; what is wrong is added to `mistakes`."""
    entries = document.get(name, []) if isinstance(document, dict) else []
    if not isinstance(entries, list):
        mistakes.append(f"{name}: must be a list")
        return []
    read: list[tuple[int, Section]] = []
    for index, entry in enumerate(entries):
        try:
            read.append((index, kind.model_validate(entry)))
        except ValidationError as fault:
            mistakes.extend(_described(f"{name}[{index}]", fault))
    return read


def _section(document: Any, name: str, kind: type[Section], mistakes: list[str]) -> Section:
    """A section of the file, the default one where it is wrong; what is wrong with it is added to `mistakes`."""
    try:
        return kind.model_validate(document.get(name, {}) if isinstance(document, dict) else {})
    except ValidationError as fault:
        mistakes.extend(_described(name, fault))
        return kind()


def _described(place: str, fault: ValidationError, levels_left_out: int = 0) -> Iterator[str]:
    """Each mistake of one entry, with the path a reader finds it at.

    The location of a deployment begins with the adapter's name, which is no level of the file.
    """
    for error in fault.errors():
        parts = [part for part in error["loc"][levels_left_out:] if part != "[key]"]
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
        yield f"{place}{path}: {error['msg'].removeprefix('Value error, ')}"


def _is_left_out(deployment: HttpDeployment, environment: Mapping[str, str]) -> bool:
    return deployment.optional and not resolved(deployment.credential or "", environment)


def _unset(read: list[tuple[int, Deployment]], environment: Mapping[str, str]) -> Iterator[str]:
    """Variables and files that the file names and that hold nothing."""
    for index, deployment in read:
        if not isinstance(deployment, HttpDeployment):
            continue
        for place, value in deployment.references.items():
            if value and not resolved(value, environment):
                yield f"deployments[{index}].{place}: {unset(value)}, or mark the deployment optional"


def _clashes(read: list[tuple[int, Deployment]]) -> Iterator[str]:
    """Names used twice, and public names that mean both a chat and an embedding model."""
    names = Counter(deployment.name for _, deployment in read)
    answered = {deployment.serves for _, deployment in read if deployment.shadow is None}
    kinds = {deployment.serves: deployment.embeds for _, deployment in reversed(read)}
    for index, deployment in read:
        if names[deployment.name] > 1:
            yield f"deployments[{index}].name: {deployment.name!r} is used {names[deployment.name]} times"
        if kinds[deployment.serves] != deployment.embeds:
            yield f"deployments[{index}].embeds: {deployment.serves!r} is served both for chat and for embeddings"
        if deployment.shadow and deployment.embeds:
            yield f"deployments[{index}].shadow: embeddings are not copied"
        if deployment.serves not in answered:
            yield f"deployments[{index}].shadow: nobody answers {deployment.serves!r}: all its deployments are shadows"


def _one_line(text: str) -> str:
    return " ".join(text.split())


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML lets a later key silently win over an earlier one; for a region that could be a breach."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping whose keys are all different."""
        keys = Counter(str(key.value) for key, _ in node.value)
        if doubled := [key for key, count in keys.items() if count > 1]:
            raise yaml.constructor.ConstructorError(None, None, f"{', '.join(doubled)} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)
