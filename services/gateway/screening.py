"""What the guard is shown of a request, and what its verdict means."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llmmesh.chat.v1 import chat_pb2
from llmmesh.guard.v1 import guard_pb2
from meshkit.errors import GuardUnavailable, PromptBlocked
from services.gateway.exchange import DataClass, Exchange
from services.gateway.guard_policy import GuardPolicy
from services.gateway.peers.guard import GuardPeer

UNJUDGED_CLASS = chat_pb2.DATA_CLASS_INTERNAL
"""Class of data the guard could not judge, of a tenant whose policy lets it pass all the same."""


async def screen(
    exchange: Exchange,
    messages: Sequence[chat_pb2.ChatMessage],
    guard: GuardPeer,
    in_force: GuardPolicy,
    *,
    fail_open: bool,
) -> None:
    """Have messages judged; what is learnt goes into `exchange` and `in_force`.

    Raises:
        PromptBlocked: If the guard refused them.
        GuardUnavailable: If it could not judge them; with `fail_open` they pass as `unguarded` instead.
    """
    try:
        verdict = await guard.check(messages)
    except GuardUnavailable:
        if not fail_open:
            raise
        exchange.unguarded = True
        return
    in_force.learn(verdict.policy_version)
    exchange.judged(verdict)
    admitted(verdict)


def shown_messages(prompt: chat_pb2.ChatPrompt) -> list[chat_pb2.ChatMessage]:
    """Everything of a prompt that reaches a model: the conversation, then tools and other JSON as one more message."""
    parts = [chat_pb2.ContentPart(raw_json=text) for text in _json_texts(prompt.options) if text]
    if not parts:
        return list(prompt.messages)
    return [*prompt.messages, chat_pb2.ChatMessage(role=chat_pb2.ROLE_SYSTEM, content=parts)]


def admitted(verdict: guard_pb2.Verdict) -> None:
    """Pass, or raise PromptBlocked. A verdict to mask blocks: the words a caller relies on are not changed."""
    if verdict.action == guard_pb2.ACTION_ALLOW:
        return
    rules = sorted({found.rule for found in verdict.detections})
    risk = guard_pb2.RiskLevel.Name(verdict.risk_level).removeprefix("RISK_LEVEL_").lower()
    raise PromptBlocked(
        f"The prompt was refused by the content policy ({', '.join(rules)}; risk {risk}): rephrase it.",
        risk=risk,
        rules=",".join(rules),
    )


def routed_class(exchange: Exchange) -> DataClass:
    """The class by which the router chooses."""
    return exchange.data_class or UNJUDGED_CLASS


def _json_texts(options: chat_pb2.GenerationOptions) -> Iterator[str]:
    yield from options.tools_json
    yield options.tool_choice_json
    yield options.response_format_json
    yield from options.extra_json.values()
