"""The guard's RPCs: decode, judge, encode."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace

from google.protobuf import duration_pb2, timestamp_pb2

from llmmesh.chat.v1 import chat_pb2
from llmmesh.guard.v1 import guard_pb2, guard_pb2_grpc
from llmmesh.tenant.v1 import tenant_pb2
from meshkit.egress import RESIDENCIES
from meshkit.errors import FieldInvalid
from meshkit.identity import current_identity
from meshkit.reloading import Reloader
from meshkit.server import Context
from services.guard import metrics
from services.guard.answers import AnswerGuard, ModelWatch, Piece
from services.guard.azure import LAYER as CLOUD
from services.guard.billing import RuleStore
from services.guard.config import GuardConfig
from services.guard.contexts import masked_contexts, placeholder
from services.guard.escalation import Escalation, Wishes, is_unsure
from services.guard.layers import RuleLayers
from services.guard.llama_guard import LAYER as MODEL
from services.guard.outcomes import Outcome, outcomes
from services.guard.passages import Passage, Speaker
from services.guard.prompts import masked_prompt, passage
from services.guard.rule_messages import rule_messages, words_of
from services.guard.second_look import LAYER as EMBEDDING
from services.guard.stream import AnswerWatch, Release
from services.guard.tenant_rules import KeptRules, TenantRules
from services.guard.trials import Trials
from services.guard.verdict import MOST_OF_A_RULE, Action, DataClass, Direction, Finding, Verdict

LONGEST_PIECE = 8192


class GuardServicer(guard_pb2_grpc.GuardServiceServicer):
    """The guard over the wire."""

    def __init__(
        self, reloader: Reloader[RuleLayers], escalation: Escalation, kept: RuleStore, config: GuardConfig
    ) -> None:
        self._reloader = reloader
        self._escalation = escalation
        self._kept = kept
        self._rules = TenantRules(kept.get, config.most_tenant_rules)
        self._trials = Trials()
        self._longest_text = config.longest_text_characters
        self._longest_answer = config.longest_answer_characters
        self._most_repeated = config.most_repeated_characters

    async def CheckPrompt(
        self, request: guard_pb2.CheckPromptRequest, context: Context
    ) -> guard_pb2.CheckPromptResponse:
        """Judge a prompt."""
        passages = [passage(message, index) for index, message in enumerate(request.messages)]
        self._check_length("messages", sum(len(each.text) for each in passages))
        stated = _stated(request.data_class)
        own = await self._rules.of(current_identity().tenant_id, request.policy.rules_version)
        layers = self._reloader.current
        verdict = await layers.cascade(Direction.INPUT, own).judge(passages)
        verdict = verdict.at_least(stated)
        wishes = wishes_of(request.policy, request.residency, request.tier)
        verdict = await self._escalation.judged(passages, verdict, wishes)
        metrics.count(verdict, Direction.INPUT)
        masked = _masked(request, verdict)
        if masked is not None:
            verdict = replace(verdict, action=Action.MASK)
        told = _told(passages, verdict, layers.version(own))
        return guard_pb2.CheckPromptResponse(verdict=told, masked=masked, unsure=is_unsure(verdict))

    async def CheckText(self, request: guard_pb2.CheckTextRequest, context: Context) -> guard_pb2.CheckTextResponse:
        """Try a text."""
        self._check_length("text", len(request.text))
        direction = Direction.OUTPUT if request.direction == guard_pb2.DIRECTION_OUTPUT else Direction.INPUT
        passages = [Passage(request.text, Speaker.MODEL if direction is Direction.OUTPUT else Speaker.CALLER)]
        own = await self._rules.newest(current_identity().tenant_id) if request.tenant_rules else None
        layers = self._reloader.current
        cascade = layers.cascade(direction, own)
        wishes = wishes_of(request.policy)
        verdict = await cascade.judge(passages)
        verdict = await self._escalation.judged(passages, verdict, replace(wishes, layers=wishes.layers - {CLOUD}))
        metrics.count(verdict, direction)
        present = {*cascade.layers, *self._escalation.layers}
        states = outcomes([*cascade.layers, EMBEDDING, MODEL, CLOUD], present, verdict)
        told = _told(passages, verdict, layers.version(own))
        return guard_pb2.CheckTextResponse(verdict=told, layers=map(_layer_state, states))

    async def WatchAnswer(
        self, request_iterator: AsyncIterator[guard_pb2.WatchAnswerRequest], context: Context
    ) -> AsyncIterator[guard_pb2.WatchAnswerResponse]:
        """Judge an answer as it is spoken, all of it by one policy; a caller that ends without `last` means it."""
        layers = self._reloader.current
        first = await anext(aiter(request_iterator), guard_pb2.WatchAnswerRequest(last=True))
        own = await self._rules.of(current_identity().tenant_id, first.policy.rules_version)
        sets, version = [layers.policy.answers, *(own.answers if own else ())], layers.version(own)
        watch = AnswerWatch(sets, self._most_repeated, json=first.json)
        async with (
            aclosing(AnswerGuard(watch, self._model_watch(first))) as answer,
            aclosing(answer.pieces(_pieces(first, request_iterator, self._longest_answer))) as pieces,
        ):
            async for text, last in pieces:
                release = await answer.feed(text, last=last)
                if release.text or release.verdict:
                    yield _response(release, version)
                if release.verdict:
                    await _heard_out(pieces)
                    return
            yield _response(await answer.feed("", last=True), version)

    def _model_watch(self, first: guard_pb2.WatchAnswerRequest) -> ModelWatch | None:
        """The guard model beside an answer, if it is to be judged by it."""
        if not first.policy.model:
            return None
        wishes = wishes_of(first.policy, tier=first.tier)
        judge = self._escalation.of_answer(wishes, prompt_unsure=first.prompt_unsure)
        if judge is None:
            return None
        conversation = [passage(message, index) for index, message in enumerate(first.conversation)]
        return ModelWatch(judge, conversation, hold=first.whole or first.policy.hold_answers)

    async def GetPolicy(self, request: guard_pb2.GetPolicyRequest, context: Context) -> guard_pb2.GetPolicyResponse:
        """Name the policy in force."""
        policy, status = self._reloader.current.policy, self._reloader.status
        return guard_pb2.GetPolicyResponse(
            policy_version=policy.version,
            rule_count=policy.rule_count,
            load_time=_time(status.loaded_at),
            refuse_time=_time(status.refused_at) if status.refused_at else None,
            mistakes=status.mistakes,
        )

    async def ReplaceRules(
        self, request: guard_pb2.ReplaceRulesRequest, context: Context
    ) -> guard_pb2.ReplaceRulesResponse:
        """Put a tenant's rules in place of those it has, if all of them can be used."""
        tried = await self._trials.tried(words_of(request.rules))
        before = await self._kept.get(request.tenant_id)
        kept = KeptRules.of(tried, before)
        if kept is not before:
            await self._kept.put(request.tenant_id, kept)
        return guard_pb2.ReplaceRulesResponse(rules=rule_messages(kept.rules_json), version=kept.version)

    async def ListRules(self, request: guard_pb2.ListRulesRequest, context: Context) -> guard_pb2.ListRulesResponse:
        """A tenant's rules."""
        kept = await self._kept.get(request.tenant_id)
        return guard_pb2.ListRulesResponse(rules=rule_messages(kept.rules_json), version=kept.version)

    def _check_length(self, field: str, length: int) -> None:
        if length > self._longest_text:
            raise FieldInvalid(field, f"must be at most {self._longest_text} characters long, and is {length}")


def _stated(data_class: chat_pb2.DataClass.ValueType) -> DataClass:
    """The least sensitive that a prompt counts as. Raises FieldInvalid for a number that is no class."""
    try:
        return DataClass(data_class or DataClass.PUBLIC)
    except ValueError:
        raise FieldInvalid("data_class", f"must be a class, not {data_class}") from None


def _told(passages: Sequence[Passage], verdict: Verdict, version: str) -> guard_pb2.Verdict:
    return _encoded(verdict, masked_contexts(passages, verdict.findings), version)


def _response(release: Release, version: str) -> guard_pb2.WatchAnswerResponse:
    if release.verdict is None:
        return guard_pb2.WatchAnswerResponse(text=release.text)
    metrics.count(release.verdict, Direction.OUTPUT)
    verdict = _encoded(release.verdict, map(placeholder, release.verdict.findings), version)
    return guard_pb2.WatchAnswerResponse(text=release.text, verdict=verdict, runaway=release.runaway)


def _encoded(verdict: Verdict, contexts: Iterable[str], version: str) -> guard_pb2.Verdict:
    return guard_pb2.Verdict(
        action=guard_pb2.Action.ValueType(verdict.action),
        risk_level=guard_pb2.RiskLevel.ValueType(verdict.risk_level),
        data_class=chat_pb2.DataClass.ValueType(verdict.data_class),
        detections=map(_detection, verdict.findings, contexts),
        policy_version=version,
        layer_times=[_layer_time(layer, seconds) for layer, seconds in verdict.layer_seconds.items()],
    )


def _time(seconds: float) -> timestamp_pb2.Timestamp:
    whole = int(seconds)
    return timestamp_pb2.Timestamp(seconds=whole, nanos=int((seconds - whole) * 1e9))


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


def _layer_state(state: tuple[str, Outcome]) -> guard_pb2.LayerState:
    layer, outcome = state
    return guard_pb2.LayerState(layer=layer, outcome=guard_pb2.LayerOutcome.ValueType(outcome))


def wishes_of(
    policy: tenant_pb2.GuardPolicy,
    residency: chat_pb2.DataResidency.ValueType = chat_pb2.DATA_RESIDENCY_UNSPECIFIED,
    tier: chat_pb2.Tier.ValueType = chat_pb2.TIER_UNSPECIFIED,
) -> Wishes:
    """What a tenant wants of the slower layers."""
    budget = policy.escalation_budget.ToNanoseconds() / 1e9 if policy.HasField("escalation_budget") else None
    return Wishes(
        layers=frozenset(layer for layer, wanted in ((MODEL, policy.model), (CLOUD, policy.cloud)) if wanted),
        residency=RESIDENCIES[residency],
        sampled_share=policy.sampled_share,
        budget_seconds=budget,
        tier=chat_pb2.Tier.Name(tier).removeprefix("TIER_").lower(),
        fail_open=frozenset(policy.fail_open_layers),
    )


def _masked(request: guard_pb2.CheckPromptRequest, verdict: Verdict) -> guard_pb2.MaskedPrompt | None:
    """The prompt without personal data; None when there is none to hide, or nobody wants it hidden."""
    personal, required = request.policy.mask, verdict.action is Action.MASK
    if not (required or (personal and verdict.action is Action.ALLOW)):
        return None
    copies, originals, data_class = masked_prompt(request.messages, verdict.findings, personal=personal)
    if not originals or (required and _too_many_to_mask(verdict)):
        return None
    return guard_pb2.MaskedPrompt(
        messages=copies,
        placeholders=[guard_pb2.Placeholder(text=text, original=original) for text, original in originals.items()],
        data_class=chat_pb2.DataClass.ValueType(max(data_class, request.data_class)),
        required=required,
    )


def _too_many_to_mask(verdict: Verdict) -> bool:
    """Whether there may be more to hide than the verdict names."""
    counts = Counter(found.rule for found in verdict.findings if found.action is Action.MASK)
    return max(counts.values(), default=0) >= MOST_OF_A_RULE


async def _pieces(
    first: guard_pb2.WatchAnswerRequest, rest: AsyncIterator[guard_pb2.WatchAnswerRequest], longest: int
) -> AsyncGenerator[Piece, None]:
    """What is said, in pieces after which other calls get their turn. Raises FieldInvalid of too long an answer."""
    request: guard_pb2.WatchAnswerRequest | None = first
    left = longest
    while request is not None:
        text = request.text
        left -= len(text)
        if left < 0:
            raise FieldInvalid("text", f"the answer must be at most {longest} characters long")
        for start in range(0, max(len(text), 1), LONGEST_PIECE):
            yield text[start : start + LONGEST_PIECE], request.last and start + LONGEST_PIECE >= len(text)
        request = await anext(rest, None)


async def _heard_out(pieces: AsyncIterator[Piece]) -> None:
    """Wait until the caller ends or hangs up: while it speaks, it would see a broken call in place of the verdict."""
    with suppress(FieldInvalid):
        async for _ in pieces:
            pass
