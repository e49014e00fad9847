"""What a caller sent, checked and read into the room's own words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import orjson

from llmmesh.chat.v1 import chat_pb2
from llmmesh.router.v1 import router_pb2
from meshkit.egress import RESIDENCIES, DataClass
from meshkit.errors import FieldInvalid
from services.router.constraints import Limits
from services.router.needs import chat_needs, embedding_needs
from services.router.preferences import Caller, StrategyName, Tier
from services.router.ranking import Demand

MOST_TEXTS = 2048

DATA_CLASSES = {
    # What nobody has classified is treated as the strictest.
    chat_pb2.DATA_CLASS_UNSPECIFIED: DataClass.SENSITIVE,
    chat_pb2.DATA_CLASS_PUBLIC: DataClass.PUBLIC,
    chat_pb2.DATA_CLASS_INTERNAL: DataClass.INTERNAL,
    chat_pb2.DATA_CLASS_CONFIDENTIAL: DataClass.CONFIDENTIAL,
    chat_pb2.DATA_CLASS_SENSITIVE: DataClass.SENSITIVE,
}
SPEAKERS = frozenset(chat_pb2.Role.values()) - {chat_pb2.ROLE_UNSPECIFIED}
TIERS = {chat_pb2.TIER_UNSPECIFIED: None} | {chat_pb2.Tier.Value(f"TIER_{tier.name}"): tier for tier in Tier}
STRATEGIES = {chat_pb2.ROUTING_STRATEGY_UNSPECIFIED: None} | {
    chat_pb2.RoutingStrategy.Value(f"ROUTING_STRATEGY_{name.name}"): name for name in StrategyName
}


def chat_demand(request: router_pb2.StreamGenerateChatRequest, tenant_id: str) -> Demand:
    """What a chat request asks for.

    Raises:
        FieldInvalid: Naming what cannot be understood or put to a provider.
    """
    prompt = checked_prompt(request.prompt)
    caller = caller_of(request.preferences, tenant_id)
    limits, shadows = limits_of(request.constraints), frozenset(request.constraints.shadows)
    alone = request.constraints.one_at_a_time
    return Demand(prompt.model, chat_needs(prompt), limits, caller, prompt=prompt, shadows=shadows, alone=alone)


def embedding_demand(request: router_pb2.EmbedTextRequest, tenant_id: str) -> Demand:
    """What an embedding request asks for; raises as `chat_demand` does."""
    texts = checked_texts(request.texts)
    caller = caller_of(request.preferences, tenant_id)
    return Demand(request.model, embedding_needs(texts), limits_of(request.constraints), caller, texts=texts)


def explained_demand(request: router_pb2.ExplainRouteRequest, tenant_id: str) -> Demand:
    """What a request that is not sent asks for; raises as `chat_demand` does."""
    limits, caller = limits_of(request.constraints), caller_of(request.preferences, tenant_id)
    model = request.prompt.model
    if request.texts:
        texts = checked_texts(request.texts)
        return Demand(model, embedding_needs(texts), limits, caller, texts=texts)
    prompt = checked_prompt(request.prompt)
    return Demand(model, chat_needs(prompt), limits, caller, prompt=prompt)


def checked_judgement(request: router_pb2.RecordFeedbackRequest) -> tuple[str, float]:
    """Which answer is judged, and its score from -1 to 1.

    Raises:
        FieldInvalid: If there is no answer, no judgement, or one beyond the scale.
    """
    if not request.request_id:
        raise FieldInvalid("request_id", "must be the x-request-id of an answer")
    if not request.HasField("judgement"):
        raise FieldInvalid("score", "must be set, or thumbs_up")
    if request.HasField("thumbs_up"):
        return request.request_id, 1.0 if request.thumbs_up else -1.0
    if not -1 <= request.score <= 1:
        raise FieldInvalid("score", "must be from -1 to 1")
    return request.request_id, request.score


def limits_of(constraints: router_pb2.RouteConstraints) -> Limits:
    """The constraints of a request."""
    if constraints.data_class not in DATA_CLASSES:
        raise FieldInvalid("constraints.data_class", f"{constraints.data_class} is no known class")
    if constraints.residency not in RESIDENCIES:
        raise FieldInvalid("constraints.residency", f"{constraints.residency} is no known residency")
    return Limits(
        frozenset(constraints.deployments), DATA_CLASSES[constraints.data_class], RESIDENCIES[constraints.residency]
    )


def caller_of(preferences: router_pb2.RoutePreferences, tenant_id: str) -> Caller:
    """Who asks."""
    if preferences.tier not in TIERS:
        raise FieldInvalid("preferences.tier", f"{preferences.tier} is no known tier")
    if preferences.strategy not in STRATEGIES:
        raise FieldInvalid("preferences.strategy", f"{preferences.strategy} is no known strategy")
    return Caller(tenant_id, TIERS[preferences.tier], STRATEGIES[preferences.strategy], tuple(preferences.tags))


def data_class_of(word: DataClass) -> chat_pb2.DataClass.ValueType:
    """The mesh's number for a data class."""
    return chat_pb2.DataClass.Value(f"DATA_CLASS_{word.name}")


def checked_prompt(prompt: chat_pb2.ChatPrompt) -> chat_pb2.ChatPrompt:
    """The prompt, if it can be put to a provider: JSON in it is spliced into requests as it stands.

    Raises:
        FieldInvalid: Naming what cannot.
    """
    if not prompt.messages:
        raise FieldInvalid("messages", "must hold at least one message")
    for index, message in enumerate(prompt.messages):
        _check_message(f"messages[{index}]", message)
    for field, text in _json_fields(prompt.options):
        _check_json(field, text)
    return prompt


def checked_texts(texts: Sequence[str]) -> list[str]:
    """The texts to embed.

    Raises:
        FieldInvalid: If there are none, too many, or empty ones.
    """
    if not 1 <= len(texts) <= MOST_TEXTS:
        raise FieldInvalid("input", f"must hold 1 to {MOST_TEXTS} texts")
    for index, text in enumerate(texts):
        if not text:
            raise FieldInvalid(f"input[{index}]", "must not be empty")
    return list(texts)


def _check_message(field: str, message: chat_pb2.ChatMessage) -> None:
    if message.role not in SPEAKERS:
        raise FieldInvalid(f"{field}.role", "must say who speaks")
    for index, part in enumerate(message.content):
        match part.WhichOneof("part"):
            case None:
                raise FieldInvalid(f"{field}.content[{index}]", "must hold a text, an image or JSON")
            case "raw_json":
                _check_json(f"{field}.content[{index}]", part.raw_json)


def _json_fields(options: chat_pb2.GenerationOptions) -> Iterator[tuple[str, str]]:
    yield from ((f"tools[{index}]", text) for index, text in enumerate(options.tools_json))
    if options.tool_choice_json:
        yield "tool_choice", options.tool_choice_json
    if options.response_format_json:
        yield "response_format", options.response_format_json
    yield from options.extra_json.items()


def _check_json(field: str, text: str) -> None:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        raise FieldInvalid(field, "must be one JSON value") from None
