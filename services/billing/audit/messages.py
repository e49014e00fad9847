"""Between audit events and their messages."""

from __future__ import annotations

from llmmesh.audit.v1 import audit_pb2
from llmmesh.chat.v1 import chat_pb2
from services.billing.audit.event import CACHE_STATUSES, OUTCOMES, Event
from services.billing.fields import check_listed, check_number_of, check_sha256, check_text
from services.billing.messages import enum_value, enum_word, time_of, timestamp

MOST_RULES = 1000


def event_of(field: str, message: audit_pb2.Event) -> Event:
    """An event to append."""
    check_number_of(f"{field}.guard_rules", len(message.guard_rules), most=MOST_RULES)

    def optional(name: str) -> str:
        return check_text(f"{field}.{name}", getattr(message, name), required=False)

    made = time_of(f"{field}.create_time", message.create_time) if message.HasField("create_time") else None
    return Event(
        request_id=check_text(f"{field}.request_id", message.request_id),
        tenant_id=check_text(f"{field}.tenant_id", message.tenant_id),
        key_id=optional("key_id"),
        model=optional("model"),
        outcome=check_listed(f"{field}.outcome", message.outcome, OUTCOMES),
        reason=optional("reason"),
        data_class=enum_word(f"{field}.data_class", chat_pb2.DataClass, message.data_class),
        guard_rules=tuple(check_text(f"{field}.guard_rules", rule) for rule in message.guard_rules),
        guard_policy_version=optional("guard_policy_version"),
        deployment=optional("deployment"),
        cache_status=check_listed(f"{field}.cache_status", message.cache_status, CACHE_STATUSES),
        prompt_sha256=check_sha256(f"{field}.prompt_sha256", message.prompt_sha256),
        answer_sha256=check_sha256(f"{field}.answer_sha256", message.answer_sha256),
        create_time=made,
    )


def event_message(event: Event) -> audit_pb2.Event:
    """An event that was appended."""
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
        deployment=event.deployment,
        cache_status=event.cache_status,
        prompt_sha256=event.prompt_sha256,
        answer_sha256=event.answer_sha256,
        create_time=timestamp(event.create_time) if event.create_time else None,
    )
