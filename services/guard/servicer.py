"""The guard's RPCs: decode, judge, encode."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import closing

from google.protobuf import duration_pb2

from llmmesh.chat.v1 import chat_pb2
from llmmesh.guard.v1 import guard_pb2, guard_pb2_grpc
from meshkit.errors import FieldInvalid
from meshkit.server import Context
from services.guard import metrics
from services.guard.cascade import Cascade
from services.guard.config import GuardConfig
from services.guard.contexts import masked_contexts, placeholder
from services.guard.passages import Passage
from services.guard.policy import Policy
from services.guard.stream import Release
from services.guard.verdict import Direction, Finding, Verdict

ATTACKERS = frozenset({chat_pb2.ROLE_UNSPECIFIED, chat_pb2.ROLE_USER, chat_pb2.ROLE_TOOL})
"""Who may speak with an attacker's words; the application's own, and the model's, are only classified."""
LONGEST_PIECE = 8192


class GuardServicer(guard_pb2_grpc.GuardServiceServicer):
    """The guard over the wire."""

    def __init__(self, policy: Policy, cascades: Mapping[Direction, Cascade], config: GuardConfig) -> None:
        self._policy = policy
        self._cascades = cascades
        self._longest_text = config.longest_text_characters
        self._longest_answer = config.longest_answer_characters

    async def CheckPrompt(
        self, request: guard_pb2.CheckPromptRequest, context: Context
    ) -> guard_pb2.CheckPromptResponse:
        """Judge a prompt."""
        passages = [_passage(message, index) for index, message in enumerate(request.messages)]
        self._check_length("messages", sum(len(passage.text) for passage in passages))
        return guard_pb2.CheckPromptResponse(verdict=await self._judge(passages, Direction.INPUT))

    async def CheckText(self, request: guard_pb2.CheckTextRequest, context: Context) -> guard_pb2.CheckTextResponse:
        """Try a text."""
        self._check_length("text", len(request.text))
        direction = Direction.OUTPUT if request.direction == guard_pb2.DIRECTION_OUTPUT else Direction.INPUT
        return guard_pb2.CheckTextResponse(verdict=await self._judge([Passage(request.text)], direction))

    async def WatchAnswer(
        self, request_iterator: AsyncIterator[guard_pb2.WatchAnswerRequest], context: Context
    ) -> AsyncIterator[guard_pb2.WatchAnswerResponse]:
        """Judge an answer as it is spoken; a caller that ends without `last` means it."""
        received = 0
        with closing(self._policy.answers.watch()) as watch:
            async for request in request_iterator:
                received += len(request.text)
                if received > self._longest_answer:
                    raise FieldInvalid("text", f"the answer must be at most {self._longest_answer} characters long")
                for text, last in _pieces(request):
                    release = watch.feed(text, last=last)
                    if release.text or release.verdict:
                        yield self._response(release)
                    if release.verdict:
                        return
            yield self._response(watch.feed("", last=True))

    async def GetPolicy(self, request: guard_pb2.GetPolicyRequest, context: Context) -> guard_pb2.GetPolicyResponse:
        """Name the policy in force."""
        return guard_pb2.GetPolicyResponse(policy_version=self._policy.version, rule_count=self._policy.rule_count)

    def _check_length(self, field: str, length: int) -> None:
        if length > self._longest_text:
            raise FieldInvalid(field, f"must be at most {self._longest_text} characters long, and is {length}")

    async def _judge(self, passages: list[Passage], direction: Direction) -> guard_pb2.Verdict:
        verdict = await self._cascades[direction].judge(passages)
        metrics.count(verdict, direction)
        return self._encoded(verdict, masked_contexts(passages, verdict.findings))

    def _response(self, release: Release) -> guard_pb2.WatchAnswerResponse:
        if release.verdict is None:
            return guard_pb2.WatchAnswerResponse(text=release.text)
        metrics.count(release.verdict, Direction.OUTPUT)
        hidden = map(placeholder, release.verdict.findings)
        return guard_pb2.WatchAnswerResponse(text=release.text, verdict=self._encoded(release.verdict, hidden))

    def _encoded(self, verdict: Verdict, contexts: Iterable[str]) -> guard_pb2.Verdict:
        return guard_pb2.Verdict(
            action=guard_pb2.Action.ValueType(verdict.action),
            risk_level=guard_pb2.RiskLevel.ValueType(verdict.risk_level),
            data_class=chat_pb2.DataClass.ValueType(verdict.data_class),
            detections=map(_detection, verdict.findings, contexts),
            policy_version=self._policy.version,
            layer_times=[_layer_time(layer, seconds) for layer, seconds in verdict.layer_seconds.items()],
        )


def _detection(found: Finding, masked_context: str) -> guard_pb2.Detection:
    return guard_pb2.Detection(
        rule=found.rule,
        layer=found.layer,
        category=found.category,
        severity=guard_pb2.RiskLevel.ValueType(found.severity),
        start=found.start,
        end=found.end,
        score=found.score,
        message_index=found.message_index,
        masked_context=masked_context,
    )


def _layer_time(layer: str, seconds: float) -> guard_pb2.LayerTime:
    duration = duration_pb2.Duration()
    duration.FromNanoseconds(int(seconds * 1e9))
    return guard_pb2.LayerTime(layer=layer, duration=duration)


def _passage(message: chat_pb2.ChatMessage, index: int) -> Passage:
    return Passage("\n".join(_texts(message)), message.role in ATTACKERS, index)


def _texts(message: chat_pb2.ChatMessage) -> Iterator[str]:
    """Every text of a message; an image inside the message is none."""
    for part in message.content:
        if part.image_url.url.startswith("data:"):
            continue
        yield part.text or part.raw_json or part.image_url.url
    for call in message.tool_calls:
        yield from (call.name, call.arguments)
    if message.name:
        yield message.name


def _pieces(request: guard_pb2.WatchAnswerRequest) -> Iterator[tuple[str, bool]]:
    """The request's text in pieces short enough not to keep other calls waiting, each with whether it is the last."""
    text = request.text
    for start in range(0, max(len(text), 1), LONGEST_PIECE):
        yield text[start : start + LONGEST_PIECE], request.last and start + LONGEST_PIECE >= len(text)
