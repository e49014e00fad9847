"""One request and what became of it: the words both faces and the flow share."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from google.protobuf import timestamp_pb2

from llmmesh.audit.v1 import audit_pb2
from llmmesh.cache.v1 import cache_pb2
from llmmesh.chat.v1 import chat_pb2
from llmmesh.gateway.v1 import gateway_pb2
from llmmesh.guard.v1 import guard_pb2
from llmmesh.router.v1 import router_pb2
from meshkit.identity import Identity
from meshkit.usage import all_input_tokens, all_output_tokens
from services.gateway.cache_control import AS_ALLOWED, CacheControl
from services.gateway.stops import AnswerStopped

if TYPE_CHECKING:
    from services.gateway.broadcast import Broadcast
    from services.gateway.limits.limiter import Permit

CacheStatus: TypeAlias = gateway_pb2.CacheStatus.ValueType
FinishReason: TypeAlias = chat_pb2.FinishReason.ValueType
DataClass: TypeAlias = chat_pb2.DataClass.ValueType
Direction: TypeAlias = Literal["input", "output"]

LAST_CACHED_CLASS = chat_pb2.DATA_CLASS_INTERNAL
"""Stricter data is neither read from the cache nor written to it."""

CACHED = frozenset({gateway_pb2.CACHE_STATUS_EXACT, gateway_pb2.CACHE_STATUS_SEMANTIC})


def cache_word(status: CacheStatus) -> str:
    """The status as headers, ledger and metrics spell it, such as "exact"; empty when the cache was not asked."""
    if status == gateway_pb2.CACHE_STATUS_UNSPECIFIED:
        return ""
    return gateway_pb2.CacheStatus.Name(status).removeprefix("CACHE_STATUS_").lower()


@dataclass(frozen=True, slots=True)
class Question:
    """A chat request, whichever face it came through."""

    prompt: chat_pb2.ChatPrompt
    cache: CacheControl = AS_ALLOWED
    output_limit_field: str = "prompt.options.max_output_tokens"
    """What the caller calls the limit of the answer."""
    data_class: DataClass = chat_pb2.DATA_CLASS_UNSPECIFIED
    """How sensitive the caller says it is: raises what the guard finds, never lowers it."""
    whole: bool = False
    """Whether the caller waits for the whole answer, so that a wrong one can still be replaced."""
    max_cost_micros: int | None = None
    """The most that the caller pays for it; None when it does not say."""


@dataclass(frozen=True, slots=True)
class Route:
    """First event of an answer: who answers."""

    request_id: str
    provider: str
    deployment: str
    cache_status: CacheStatus
    overhead_seconds: float
    """Time spent by the mesh until now; the router's own part counts as the provider's."""
    free_in: str = ""
    """Currency in which the answer costs nothing; empty when its cost is not known yet."""
    whole: bool = False
    """Whether the answer comes in one piece, with its end."""
    limit_headers: Sequence[tuple[str, str]] = ()
    """How the caller stands against its rate limits."""


@dataclass(frozen=True, slots=True)
class Report:
    """Where an answer came from and what it cost."""

    request_id: str
    provider: str
    deployment: str
    cache_status: CacheStatus
    cost_micros: int | None
    """None while billing has not accepted the settlement."""
    currency_code: str
    overhead_seconds: float
    limit_headers: Sequence[tuple[str, str]] = ()
    """How the caller stands against its rate limits."""
    stopped_for: str = ""
    """Why the mesh ended the answer, or had it ended; empty when it did not."""


@dataclass(frozen=True, slots=True)
class Finished:
    """Last event of an answer."""

    finish_reason: FinishReason
    usage: chat_pb2.TokenUsage
    report: Report


Event: TypeAlias = Route | chat_pb2.Delta | Finished
"""An answer is one route, deltas, one finished."""


@dataclass(slots=True)
class Exchange:
    """What is known of a request while it is being answered; audit, ledger and metrics are written from it."""

    caller: Identity
    model: str
    started: float = field(default_factory=time.perf_counter)
    cache_status: CacheStatus = gateway_pb2.CACHE_STATUS_UNSPECIFIED
    data_class: DataClass = chat_pb2.DATA_CLASS_UNSPECIFIED
    guard_policy_version: str = ""
    guard_rules: list[str] = field(default_factory=list)
    findings: dict[tuple[str, str], audit_pb2.Finding] = field(default_factory=dict)
    """What the guard found, each rule once a side."""
    tenant_policy_version: str = ""
    keeps_contents: bool = False
    """Whether the tenant wants prompt and answer kept."""
    candidates: Sequence[str] = ()
    """Deployments it could have gone to."""
    attempts: Sequence[audit_pb2.Attempt] = ()
    """Deployments that did not answer, oldest first."""
    routes_version: str = ""
    """Of the routes file by which the deployment was chosen."""
    price_time: timestamp_pb2.Timestamp | None = None
    """Since when the price that was billed is in force."""
    cached_request_id: str = ""
    """Whose answer the cache gave."""
    cost_micros: int = 0
    currency_code: str = ""
    """Empty while the cost is not known."""
    mixed_guard_policies: bool = False
    """True when prompt and answer were judged by different versions of the guard's policy."""
    unguarded: bool = False
    """True when the tenant's policy let something pass that the guard could not judge."""
    unwatched: bool = False
    """True when the answer passes unwatched too, for the guard was not there at all."""
    prompt_unsure: bool = False
    """Whether the guard was unsure of the prompt, so that its answer deserves a second look."""
    strays: bool = False
    """True when another variant answered than the one the question was put to."""
    cached: cache_pb2.CachedAnswer | None = None
    """The answer as the cache gave it."""
    similarity: float = 0.0
    """Of the question to the one that was answered, of a semantic hit."""
    provider: str = ""
    deployment: str = ""
    finish_reason: FinishReason = chat_pb2.FINISH_REASON_UNSPECIFIED
    stopped_for: str = ""
    """Why the mesh ended the answer, or had it ended; empty when it did not."""
    usage: chat_pb2.TokenUsage = field(default_factory=chat_pb2.TokenUsage)
    provider_seconds: float = 0.0
    first_byte_seconds: float | None = None
    """From the start to the first piece of the answer; None when there was none."""
    prompt_texts: Sequence[str] = ()
    answer_texts: list[str] = field(default_factory=list)
    """Visible text as sent."""
    reasoning_texts: list[str] = field(default_factory=list)
    """Reasoning as sent."""
    called_tools: bool = False
    known_model: bool = False
    """Metrics name only models of the catalogue."""
    limit_headers: Sequence[tuple[str, str]] = ()
    """How the caller stands against its rate limits; none where nothing is limited."""
    permit: Permit | None = None
    """What the caller's rate limits have granted; None where nothing is limited."""
    broadcast: Broadcast[Event] | None = None
    """Where others can hear the answer; None when nobody can."""

    def seconds(self) -> float:
        """Time since the request arrived."""
        return time.perf_counter() - self.started

    def overhead_seconds(self) -> float:
        """Time since the request arrived that was not the provider's."""
        return max(0.0, self.seconds() - self.provider_seconds)

    def routed(self, route: router_pb2.RouteChosen) -> None:
        """Take in who answers, and who did not."""
        self.provider, self.deployment = route.provider, route.deployment
        self.routes_version = route.routes_version
        self.attempts = [
            audit_pb2.Attempt(deployment=each.deployment, reason=each.reason) for each in route.failed_attempts
        ]

    def judged(self, verdict: guard_pb2.Verdict, direction: Direction = "input") -> None:
        """Take in a verdict on the prompt or the answer; the strictest data class stays."""
        self.noted(verdict.detections, direction)
        self.data_class = max(self.data_class, verdict.data_class)
        self.mixed_guard_policies |= self.guard_policy_version not in ("", verdict.policy_version)
        self.guard_policy_version = verdict.policy_version

    def noted(self, detections: Iterable[guard_pb2.Detection], direction: Direction) -> None:
        """Take in what the guard found, whatever came of it; of what one rule found on a side, the worst."""
        for found in detections:
            finding = _finding(found, direction)
            known = self.findings.setdefault((found.rule, direction), finding)
            if _severity(finding) > _severity(known):
                self.findings[found.rule, direction] = finding
            if found.rule not in self.guard_rules:
                self.guard_rules.append(found.rule)

    def stopped(self, stop: AnswerStopped) -> None:
        """Note that the mesh ended the answer."""
        self.stopped_for = stop.why
        if stop.verdict is not None:
            self.judged(stop.verdict, "output")

    def sent(self, delta: chat_pb2.Delta) -> None:
        """Take in a piece of the answer on its way to the caller."""
        self.answer_texts.append(delta.text)
        if delta.reasoning:
            self.reasoning_texts.append(delta.reasoning)
        self.called_tools |= bool(delta.tool_calls)

    def judged_as(self, leader: Exchange) -> None:
        """Take in what the guard said of the answer, and of the same question, that another caller was given."""
        self.unguarded |= leader.unguarded
        self.data_class = max(self.data_class, leader.data_class)
        self.guard_policy_version = leader.guard_policy_version or self.guard_policy_version
        self.findings.update(leader.findings)
        self.guard_rules = list(dict.fromkeys((*self.guard_rules, *leader.guard_rules)))

    def overheard(self, leader: Exchange) -> None:
        """Take in what became of the answer that another caller was given."""
        self.judged_as(leader)
        self.usage, self.finish_reason, self.stopped_for = leader.usage, leader.finish_reason, leader.stopped_for
        self.cached = cache_pb2.CachedAnswer(
            request_id=leader.caller.request_id, cost_micros=leader.cost_micros, currency_code=leader.currency_code
        )

    def tokens_taken(self) -> int:
        """Tokens that count for rate limits: those of a cached answer were counted when it was made."""
        if self.cache_status in CACHED:
            return 0
        return all_input_tokens(self.usage) + all_output_tokens(self.usage)

    @property
    def cacheable(self) -> bool:
        """Whether the cache may hold this exchange: judged by all of one policy, not astray, not too sensitive."""
        judged = not self.unguarded and not any(rule.endswith(".failed_open") for rule in self.guard_rules)
        sound = judged and not self.mixed_guard_policies and not self.strays
        return sound and self.data_class <= LAST_CACHED_CLASS

    def route(self, free_in: str = "", *, whole: bool = False) -> Route:
        """Say who answers, in which currency it costs nothing, and whether it comes in one piece."""
        return Route(
            request_id=self.caller.request_id,
            provider=self.provider,
            deployment=self.deployment,
            cache_status=self.cache_status,
            overhead_seconds=self.overhead_seconds(),
            free_in=free_in,
            whole=whole,
            limit_headers=self.limit_headers,
        )

    def report(self, cost_micros: int | None, currency_code: str) -> Report:
        """Sum up for the caller."""
        if cost_micros is not None:
            self.cost_micros, self.currency_code = cost_micros, currency_code
        return Report(
            request_id=self.caller.request_id,
            provider=self.provider,
            deployment=self.deployment,
            cache_status=self.cache_status,
            cost_micros=cost_micros,
            currency_code=currency_code,
            overhead_seconds=self.overhead_seconds(),
            limit_headers=self.limit_headers,
            stopped_for=self.stopped_for,
        )


def _severity(finding: audit_pb2.Finding) -> int:
    return guard_pb2.RiskLevel.Value(f"RISK_LEVEL_{finding.severity.upper()}")


def _finding(found: guard_pb2.Detection, direction: Direction) -> audit_pb2.Finding:
    return audit_pb2.Finding(
        rule=found.rule,
        layer=found.layer,
        category=found.category,
        severity=guard_pb2.RiskLevel.Name(found.severity or guard_pb2.RISK_LEVEL_LOW)
        .removeprefix("RISK_LEVEL_")
        .lower(),
        direction=direction,
        masked_context=found.masked_context,
    )
