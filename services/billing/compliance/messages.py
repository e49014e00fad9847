"""Between violations and their messages."""

from __future__ import annotations

from llmmesh.audit.v1 import compliance_pb2
from meshkit.errors import FieldInvalid
from services.billing.access import visible_tenant
from services.billing.audit.event import SEVERITIES
from services.billing.compliance.packs import Packs
from services.billing.compliance.violation import Violation
from services.billing.database.violations import Wanted
from services.billing.fields import check_listed, check_text
from services.billing.messages import time_of, timestamp


def wanted_of(message: compliance_pb2.ViolationFilter) -> Wanted:
    """Which violations of a tenant that the caller may see."""
    start = time_of("filter.start_time", message.start_time) if message.HasField("start_time") else None
    end = time_of("filter.end_time", message.end_time) if message.HasField("end_time") else None
    if start and end and end < start:
        raise FieldInvalid("filter.end_time", "must not lie before start_time")
    return Wanted(
        tenant_id=visible_tenant(message.tenant_id),
        type=check_text("filter.type", message.type, required=False),
        least_severity=check_listed("filter.least_severity", message.least_severity or SEVERITIES[0], SEVERITIES),
        start=start,
        end=end,
    )


def violation_message(violation: Violation) -> compliance_pb2.Violation:
    """A violation."""
    return compliance_pb2.Violation(
        id=violation.id,
        tenant_id=violation.tenant_id,
        request_id=violation.request_id,
        key_id=violation.key_id,
        model=violation.model,
        create_time=timestamp(violation.create_time),
        type=violation.type,
        severity=violation.severity,
        packs=violation.packs,
        outcome=violation.outcome,
        rule=violation.rule,
        direction=violation.direction,
        context=violation.context,
    )


def pack_messages(packs: Packs) -> list[compliance_pb2.CompliancePack]:
    """The packs, by name."""
    return [
        compliance_pb2.CompliancePack(
            name=name, title=pack.title, violation_types=list(dict.fromkeys(count.type for count in pack.violations))
        )
        for name, pack in packs.all.items()
    ]
