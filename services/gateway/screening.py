"""What the guard is shown of a request, and what its verdict means."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from llmmesh.chat.v1 import chat_pb2
from llmmesh.guard.v1 import guard_pb2
from llmmesh.router.v1 import router_pb2
from meshkit.errors import GuardUnavailable, PromptBlocked
from services.gateway.exchange import DataClass, Exchange
from services.gateway.guard_policy import GuardPolicy
from services.gateway.peers.guard import GuardPeer, NoVerdict
from services.gateway.policies import TenantPolicy

UNJUDGED_CLASS = chat_pb2.DATA_CLASS_INTERNAL
"""Class of data the guard could not judge, of a tenant whose policy lets it pass all the same."""
PERSONAL = frozenset({"personal_data", "secret"})
"""Categories of what the guard finds that make data sensitive, whatever else it could not say."""
TURNS, TURN_CHARACTERS = 3, 1000
"""What of a conversation the guard model is shown with an answer: its last turns, of each the end."""
UNMASKABLE = "The prompt was refused: something is to be hidden that stands in no message. Leave it out of the tools."


@dataclass(frozen=True, slots=True)
class Masked:
    """A prompt as the provider gets it, and what its placeholders stand for."""

    messages: Sequence[chat_pb2.ChatMessage]
    originals: dict[str, str]
    data_class: DataClass
    """How sensitive what is left is."""


async def screen(
    exchange: Exchange,
    messages: Sequence[chat_pb2.ChatMessage],
    guard: GuardPeer,
    in_force: GuardPolicy,
    policy: TenantPolicy,
    *,
    masks: bool = False,
) -> guard_pb2.MaskedPrompt | None:
    """Have messages judged; what is learnt goes into `exchange` and `in_force`.

    With `masks`, returns what to send instead where the tenant's policy and the guard say so.

    Raises:
        PromptBlocked: If the guard refused them.
        GuardUnavailable: If it could not judge them; where the policy fails open they pass as `unguarded` instead.
    """
    try:
        response = await guard.check(messages, policy, exchange.data_class, masks=masks)
    except GuardUnavailable as error:
        if isinstance(error, NoVerdict):
            exchange.noted(error.detections, "input")
            if any(found.category in PERSONAL for found in error.detections):
                exchange.data_class = chat_pb2.DATA_CLASS_SENSITIVE
        if not policy.guard_fail_open:
            raise
        exchange.unguarded, exchange.unwatched = True, not isinstance(error, NoVerdict)
        return None
    in_force.learn(response.verdict.policy_version)
    exchange.judged(response.verdict)
    exchange.prompt_unsure = response.unsure
    masked = response.masked if masks and response.HasField("masked") else None
    admitted(response.verdict, masked=masked is not None)
    return masked


def masked_prompt(prompt: chat_pb2.ChatPrompt, masked: guard_pb2.MaskedPrompt) -> Masked | None:
    """The prompt with placeholders; None where something is to be hidden that is no message, and so cannot be.

    Raises PromptBlocked where a rule wants that hidden.
    """
    shown, sent = shown_messages(prompt), masked.messages
    if len(shown) != len(sent) or shown[len(prompt.messages) :] != sent[len(prompt.messages) :]:
        if masked.required:
            raise PromptBlocked(UNMASKABLE)
        return None
    originals = {placeholder.text: placeholder.original for placeholder in masked.placeholders}
    return Masked(sent[: len(prompt.messages)], originals, masked.data_class)


def shown_messages(prompt: chat_pb2.ChatPrompt) -> list[chat_pb2.ChatMessage]:
    """Everything of a prompt that reaches a model: the conversation, then tools and the like as one more message."""
    parts = [chat_pb2.ContentPart(raw_json=text) for text in _json_texts(prompt.options) if text]
    if not parts:
        return list(prompt.messages)
    return [*prompt.messages, chat_pb2.ChatMessage(role=chat_pb2.ROLE_SYSTEM, content=parts)]


def admitted(verdict: guard_pb2.Verdict, *, masked: bool = False) -> None:
    """Pass, or raise PromptBlocked. A verdict to mask blocks where nothing masked came with it."""
    if verdict.action == guard_pb2.ACTION_ALLOW or (masked and verdict.action == guard_pb2.ACTION_MASK):
        return
    rules = sorted({found.rule for found in verdict.detections})
    risk = guard_pb2.RiskLevel.Name(verdict.risk_level).removeprefix("RISK_LEVEL_").lower()
    raise PromptBlocked(
        f"The prompt was refused by the content policy ({', '.join(rules)}; risk {risk}): rephrase it.",
        risk=risk,
        rules=",".join(rules),
    )


def opening(
    request: router_pb2.StreamGenerateChatRequest, policy: TenantPolicy, exchange: Exchange
) -> guard_pb2.WatchAnswerRequest | None:
    """What the guard has to know before the answer to a request; None where rules alone judge it."""
    if not policy.guard.model:
        return guard_pb2.WatchAnswerRequest(policy=policy.guard) if policy.guard.rules_version else None
    return guard_pb2.WatchAnswerRequest(
        policy=policy.guard,
        tier=policy.tier,
        whole=request.whole,
        prompt_unsure=exchange.prompt_unsure,
        conversation=list(_last_turns(request.prompt.messages)),
    )


def routed_class(exchange: Exchange) -> DataClass:
    """The class by which the router chooses: of what nobody judged, a caller's word only makes it stricter."""
    return max(exchange.data_class, UNJUDGED_CLASS) if exchange.unguarded else exchange.data_class or UNJUDGED_CLASS


def _last_turns(messages: Sequence[chat_pb2.ChatMessage]) -> Iterator[chat_pb2.ChatMessage]:
    for message in messages[-TURNS:]:
        text = "\n".join(part.text for part in message.content if part.text)[-TURN_CHARACTERS:]
        if text:
            yield chat_pb2.ChatMessage(role=message.role, content=[chat_pb2.ContentPart(text=text)])


def _json_texts(options: chat_pb2.GenerationOptions) -> Iterator[str]:
    yield from options.tools_json
    yield options.tool_choice_json
    yield options.response_format_json
    yield from options.extra_json.values()
    yield from options.stop
