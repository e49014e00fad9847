"""The variants of experiments as they are defined now, and what they make of a request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

import orjson

from llmmesh.chat.v1 import chat_pb2
from meshkit.errors import MeshError
from meshkit.identity import Identity
from meshkit.lots import lot, unit_of
from services.router.decision import Decider
from services.router.experiments.plan import Experiment, PromptTemplate, Variant
from services.router.experiments.treatment import Treatment, Use
from services.router.needs import Needs
from services.router.ranking import Demand
from services.router.tokens import MESSAGE_TOKENS, text_tokens

GROUPS = 64
"""Units are counted in so many groups, so that what is kept does not grow with their number."""
MOST_MESSAGE_TOKENS = 16
"""What a chat template may add to a message."""
INSTRUCTIONS = frozenset({chat_pb2.ROLE_SYSTEM, chat_pb2.ROLE_DEVELOPER})


@dataclass(frozen=True, slots=True)
class Version:
    """A variant as it is defined now."""

    experiment: Experiment
    variant: Variant
    template: PromptTemplate | None
    name: str
    """Changes with all that makes an answer another: what is cached or counted under it stays comparable."""

    @property
    def added_tokens(self) -> int:
        """About how many its template adds to a prompt."""
        return text_tokens(self.template.system) + MESSAGE_TOKENS if self.template else 0

    @property
    def most_added_tokens(self) -> int:
        """More than that no tokenizer makes of it: there are no more tokens than bytes."""
        return len(self.template.system.encode()) + MOST_MESSAGE_TOKENS if self.template else 0

    def instructed(self, prompt: chat_pb2.ChatPrompt) -> chat_pb2.ChatPrompt:
        """The prompt with the template's instructions, and without the name of a variant."""
        return _instructed(prompt, self.template) if self.template else _unnamed(prompt)


def versions(experiment: Experiment, prompts: Mapping[str, PromptTemplate]) -> list[Version]:
    """The variants of an experiment as they are defined now."""
    templates = [prompts[each.prompt] if each.prompt else None for each in experiment.variants]
    return [
        Version(experiment, variant, template, _name(experiment, variant, template))
        for variant, template in zip(experiment.variants, templates, strict=True)
    ]


def _name(experiment: Experiment, variant: Variant, template: PromptTemplate | None) -> str:
    definition = [experiment.model, variant.deployments, template and template.model_dump()]
    digest = blake2b(orjson.dumps(definition), digest_size=6).hexdigest()
    return f"{experiment.name}/{variant.name}@{digest}"


class Trials:
    """The experiments of one routes file. They never let a request go where its constraints forbid."""

    def __init__(
        self, experiments: Sequence[Experiment], prompts: Mapping[str, PromptTemplate], decider: Decider
    ) -> None:
        self.by_experiment = {each.name: versions(each, prompts) for each in experiments}
        self._named = {version.name: version for all_ in self.by_experiment.values() for version in all_}
        self._decider = decider

    def treated(self, demand: Demand, asker: Identity) -> Demand:
        """The request as its variant makes it; one of a variant that is not known is of none."""
        if not demand.prompt.variant:
            return demand
        version = self._named.get(demand.prompt.variant)
        if version is None or version.experiment.model != demand.model:
            return replace(demand, prompt=_unnamed(demand.prompt))
        possible = self._possible(version, demand)
        answering = version if version in possible else next(iter(possible), None)
        comparable = all(each in possible for each in self._rivals(version))
        unit = unit_of(version.experiment.unit, asker, demand.prompt)
        treatment = Treatment(
            version.name,
            Use.APPLIED if answering is version else Use.BARRED,
            frozenset(answering.variant.deployments) if answering else frozenset(),
            group_of(version.experiment, unit) if comparable else None,
        )
        if answering is None:
            return replace(demand, prompt=_unnamed(demand.prompt), treatment=treatment)
        needs = _longer(demand.needs, answering.added_tokens)
        return replace(demand, prompt=answering.instructed(demand.prompt), needs=needs, treatment=treatment)

    def _rivals(self, version: Version) -> list[Version]:
        """The version and those its requests might have been put to instead."""
        running = self.by_experiment[version.experiment.name]
        return [each for each in running if each.variant.weight or each is version]

    def _possible(self, version: Version, demand: Demand) -> list[Version]:
        return [each for each in self._rivals(version) if self._is_possible(each, demand)]

    def _is_possible(self, version: Version, demand: Demand) -> bool:
        longer = replace(demand, needs=_longer(demand.needs, version.added_tokens))
        try:
            names = self._decider.shortlist(longer, self._decider.ruling(longer)).names
        except MeshError:
            return False
        return not version.variant.deployments or not set(version.variant.deployments).isdisjoint(names)


def group_of(experiment: Experiment, unit: str) -> int:
    """The group of a unit."""
    return int(lot("group", experiment.name, unit) * GROUPS)


def _longer(needs: Needs, tokens: int) -> Needs:
    return replace(needs, input_tokens=needs.input_tokens + tokens)


def _unnamed(prompt: chat_pb2.ChatPrompt) -> chat_pb2.ChatPrompt:
    return _with_messages(prompt, prompt.messages)


def _instructed(prompt: chat_pb2.ChatPrompt, template: PromptTemplate) -> chat_pb2.ChatPrompt:
    """The template's instructions before the caller's, in one message: some models know only one."""
    said = [each for each in prompt.messages if not (template.replaces and each.role in INSTRUCTIONS)]
    first, system = chat_pb2.ChatMessage(role=chat_pb2.ROLE_SYSTEM), template.system
    if said and said[0].role in INSTRUCTIONS:
        first, system = said.pop(0), f"{system}\n\n"
    parts = [chat_pb2.ContentPart(text=system), *first.content]
    if len(parts) > 1 and parts[1].text:
        parts[:2] = [chat_pb2.ContentPart(text=system + parts[1].text)]
    return _with_messages(prompt, [chat_pb2.ChatMessage(role=first.role, name=first.name, content=parts), *said])


def _with_messages(prompt: chat_pb2.ChatPrompt, messages: Iterable[chat_pb2.ChatMessage]) -> chat_pb2.ChatPrompt:
    options = prompt.options if prompt.HasField("options") else None
    return chat_pb2.ChatPrompt(model=prompt.model, messages=messages, options=options)
