"""Which variant of an experiment a request is put to: the same caller always gets the same, from every gateway."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import accumulate

from llmmesh.chat.v1 import chat_pb2
from llmmesh.router.v1 import router_pb2
from meshkit.identity import Identity
from meshkit.lots import Unit, lot, unit_of

UNITS = {
    router_pb2.EXPERIMENT_UNIT_USER: Unit.USER,
    router_pb2.EXPERIMENT_UNIT_KEY: Unit.KEY,
    router_pb2.EXPERIMENT_UNIT_TENANT: Unit.TENANT,
    router_pb2.EXPERIMENT_UNIT_REQUEST: Unit.REQUEST,
}


def takes_part(split: router_pb2.Split, tags: Iterable[str], deployments: Collection[str]) -> bool:
    """Whether a tenant of these tags does that may use these deployments: every variant must be open to it."""
    if split.tags and set(split.tags).isdisjoint(tags):
        return False
    return all(not each.deployments or set(each.deployments) & set(deployments) for each in split.variants)


def assign(prompt: chat_pb2.ChatPrompt, split: router_pb2.Split | None, caller: Identity) -> int:
    """Put a prompt to its caller's variant, or to none; returns how many tokens that adds at most.

    Everything downstream, the cache's keys too, sees a question to another variant as another question.
    """
    variant = assigned(split, caller, prompt)
    prompt.variant = variant.version if variant else ""
    return variant.added_input_tokens if variant else 0


def assigned(
    split: router_pb2.Split | None, caller: Identity, prompt: chat_pb2.ChatPrompt
) -> router_pb2.SplitVariant | None:
    """The variant for a caller; None for one who takes no part, or whom the request does not tell."""
    if split is None or split.unit not in UNITS:
        return None
    unit = unit_of(UNITS[split.unit], caller, prompt)
    if not unit or lot("share", split.experiment, unit) >= split.share:
        return None
    ends = list(accumulate(variant.weight for variant in split.variants))
    place = lot("variant", split.experiment, unit) * ends[-1]
    return next(variant for variant, end in zip(split.variants, ends, strict=True) if place < end)
