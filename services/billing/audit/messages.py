"""Between audit events and their messages."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from llmmesh.audit.v1 import audit_pb2
from llmmesh.chat.v1 import chat_pb2
from meshkit.errors import FieldInvalid
from services.billing.audit.chain import Record
from services.billing.audit.checkpoints import Checkpoint
from services.billing.audit.event import CACHE_STATUSES, DIRECTIONS, OUTCOMES, SEVERITIES, Attempt, Event, Finding
from services.billing.compliance.violation import LONGEST_CONTEXT
from services.billing.fields import check_listed, check_micros, check_number_of, check_sha256, check_text
from services.billing.messages import enum_value, enum_word, time_of, timestamp

MOST_RULES = 1000
MOST_CANDIDATES = 100
_TEXTS = (
    "key_id", "model", "reason", "guard_policy_version", "tenant_policy_version", "provider", "deployment",
    "cached_request_id", "currency_code", "routes_version",
)  # fmt: skip


def event_of(field: str, message: audit_pb2.Event) -> Event:
    """An event to append. One of the future, or without a time, ends now."""
    try:
        return _event(message)
    except FieldInvalid as invalid:
        raise invalid.inside(field) from None


def _event(message: audit_pb2.Event) -> Event:
    check_number_of("guard_rules", len(message.guard_rules), most=MOST_RULES)
    check_number_of("findings", len(message.findings), most=MOST_RULES)
    check_number_of("candidates", len(message.candidates), most=MOST_CANDIDATES)
    check_number_of("attempts", len(message.attempts), most=MOST_CANDIDATES)
    now = datetime.now(UTC)
    return Event(
        request_id=check_text("request_id", message.request_id),
        tenant_id=check_text("tenant_id", message.tenant_id),
        outcome=check_listed("outcome", message.outcome, OUTCOMES),
        create_time=min(time_of("create_time", message.create_time), now) if message.HasField("create_time") else now,
        data_class=_word("data_class", chat_pb2.DataClass, message.data_class),
        guard_rules=tuple(check_text("guard_rules", rule) for rule in message.guard_rules),
        findings=tuple(_finding(f"findings[{index}]", found) for index, found in enumerate(message.findings)),
        unguarded=message.unguarded,
        candidates=tuple(check_text("candidates", name) for name in message.candidates),
        attempts=tuple(_attempt(f"attempts[{index}]", each) for index, each in enumerate(message.attempts)),
        price_time=time_of("price_time", message.price_time) if message.HasField("price_time") else None,
        cache_status=check_listed("cache_status", message.cache_status, CACHE_STATUSES),
        cost_micros=check_micros("cost_micros", message.cost_micros),
        finish_reason=_word("finish_reason", chat_pb2.FinishReason, message.finish_reason),
        prompt_sha256=check_sha256("prompt_sha256", message.prompt_sha256),
        answer_sha256=check_sha256("answer_sha256", message.answer_sha256),
        **{name: check_text(name, value, required=False) for name in _TEXTS if (value := getattr(message, name))},
    )


@lru_cache(maxsize=256)
def _word(field: str, enum: Any, value: int) -> str:
    return enum_word(field, enum, value)


def event_message(record: Record) -> audit_pb2.Event:
    """An event that was appended."""
    event = record.event()
    return audit_pb2.Event(
        request_id=event.request_id,
        tenant_id=event.tenant_id,
        key_id=event.key_id,
        model=event.model,
        outcome=event.outcome,
        reason=event.reason,
        data_class=enum_value(chat_pb2.DataClass, event.data_class),
        guard_rules=event.guard_rules,
        guard_policy_version=event.guard_policy_version,
        findings=[_finding_message(found) for found in event.findings],
        unguarded=event.unguarded,
        tenant_policy_version=event.tenant_policy_version,
        candidates=event.candidates,
        provider=event.provider,
        deployment=event.deployment,
        cache_status=event.cache_status,
        cached_request_id=event.cached_request_id,
        cost_micros=event.cost_micros,
        currency_code=event.currency_code,
        finish_reason=enum_value(chat_pb2.FinishReason, event.finish_reason),
        prompt_sha256=event.prompt_sha256,
        answer_sha256=event.answer_sha256,
        create_time=timestamp(event.create_time),
        attempts=[audit_pb2.Attempt(deployment=each.deployment, reason=each.reason) for each in event.attempts],
        routes_version=event.routes_version,
        price_time=timestamp(event.price_time) if event.price_time else None,
        position=record.position,
        record_sha256=record.sha256,
    )


def checkpoint_message(checkpoint: Checkpoint) -> audit_pb2.Checkpoint:
    """A signed statement of what a chain held."""
    return audit_pb2.Checkpoint(
        size=checkpoint.size,
        root_sha256=checkpoint.root,
        head_sha256=checkpoint.head,
        create_time=timestamp(checkpoint.create_time),
        jws=checkpoint.jws,
    )


def _attempt(field: str, message: audit_pb2.Attempt) -> Attempt:
    return Attempt(
        deployment=check_text(f"{field}.deployment", message.deployment),
        reason=check_text(f"{field}.reason", message.reason, required=False),
    )


def _finding(field: str, message: audit_pb2.Finding) -> Finding:
    return Finding(
        rule=check_text(f"{field}.rule", message.rule),
        layer=check_text(f"{field}.layer", message.layer, required=False),
        category=check_text(f"{field}.category", message.category, required=False),
        severity=check_listed(f"{field}.severity", message.severity, SEVERITIES),
        direction=check_listed(f"{field}.direction", message.direction, DIRECTIONS),
        masked_context=check_text(
            f"{field}.masked_context", message.masked_context, required=False, longest=LONGEST_CONTEXT
        ),
    )


def _finding_message(found: Finding) -> audit_pb2.Finding:
    return audit_pb2.Finding(
        rule=found.rule,
        layer=found.layer,
        category=found.category,
        severity=found.severity,
        direction=found.direction,
    )
