"""Experiments, as the routes file says them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Self

from pydantic import Field, RootModel, StringConstraints, model_validator

from meshkit.lots import Unit
from services.router.deployment import Deployment, Name, Strict
from services.router.experiments.measures import Measure

Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]


class PromptTemplate(Strict):
    """One entry of the section `prompts`: a version of the instructions a model gets."""

    system: str = Field(min_length=1, max_length=65_536)
    """The instructions."""
    replaces: bool = False
    """Whether the caller's own are left out; else they follow."""


class PromptTemplates(RootModel[dict[Label, PromptTemplate]]):
    """The section `prompts`, by name."""

    root: dict[Label, PromptTemplate] = Field(default_factory=dict)


class Variant(Strict):
    """One of the versions of a route that an experiment compares."""

    name: Label
    weight: float = Field(default=1, ge=0, le=1000)
    """Its share, of the sum of all weights."""
    deployments: tuple[Name, ...] = ()
    """Those that answer it, whatever rules prefer; the others of the model only when these fail. Empty for any."""
    prompt: Label | None = None
    """The prompt template its requests get."""


class Experiment(Strict):
    """One entry of the section `experiments`."""

    name: Label
    model: Name
    """The public model whose requests are split."""
    unit: Unit = Unit.KEY
    """Who always gets the same variant."""
    share_percent: float = Field(default=100, gt=0, le=100)
    """How many of a hundred units take part; nobody else is touched."""
    tags: frozenset[str] = frozenset()
    """Only tenants with one of these take part; empty for all."""
    measure: Measure = Measure.SUCCESS
    """What it is decided by; settled beforehand, or chance will find a measure that differs."""
    least_requests: int = Field(default=200, ge=20)
    """Requests that each variant has to have before anything is said."""
    variants: tuple[Variant, ...] = Field(min_length=2, max_length=10)
    """The first is what the others are compared with."""

    @model_validator(mode="after")
    def _can_be_split(self) -> Self:
        if not any(variant.weight for variant in self.variants):
            raise ValueError("at least one variant must have a weight")
        if len({variant.name for variant in self.variants}) < len(self.variants):
            raise ValueError("every variant must have a name of its own")
        return self


def contradictions(
    experiments: Sequence[tuple[int, Experiment]],
    prompts: Mapping[str, PromptTemplate],
    deployments: Sequence[Deployment],
) -> Iterator[str]:
    """What experiments name that is not there, and where they are in each other's way."""
    chats = {each.name: each.serves for each in deployments if not each.embeds}
    names = Counter(experiment.name for _, experiment in experiments)
    models = Counter(experiment.model for _, experiment in experiments)
    for index, experiment in experiments:
        place = f"experiments[{index}]"
        if names[experiment.name] > 1:
            yield f"{place}.name: {experiment.name!r} is used {names[experiment.name]} times"
        if models[experiment.model] > 1:
            yield f"{place}.model: {experiment.model!r} is in another experiment, too: their effects would mix"
        if experiment.model not in chats.values():
            yield f"{place}.model: no chat deployment serves {experiment.model!r}"
        for number, variant in enumerate(experiment.variants):
            for each in variant.deployments:
                if chats.get(each) != experiment.model:
                    yield f"{place}.variants[{number}].deployments: no {each!r} serves {experiment.model!r}"
            if variant.prompt is not None and variant.prompt not in prompts:
                yield f"{place}.variants[{number}].prompt: there is no {variant.prompt!r}"
