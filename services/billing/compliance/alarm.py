"""What people are told of a violation."""

from __future__ import annotations

from collections.abc import Iterable

from services.billing.alerts.alert import Alert, at_least
from services.billing.compliance.violation import Violation

LEAST_SEVERITY = "high"
"""Violations below are listed, and nobody is told."""


def alerts_of(violations: Iterable[Violation]) -> list[Alert]:
    """The alerts that violations raise."""
    return [_alert(violation) for violation in violations if at_least(violation.severity, LEAST_SEVERITY)]


def _alert(violation: Violation) -> Alert:
    """Where to look, and nothing of what was said."""
    return Alert(
        kind="violation",
        tenant_id=violation.tenant_id,
        severity=violation.severity,
        title=f"{violation.severity}: {violation.type} at {violation.tenant_id}",
        text=(
            f"Request {violation.request_id} of key {violation.key_id or 'unknown'} to {violation.model or 'no model'} "
            f"was {violation.outcome} ({violation.rule or 'no rule'}; {', '.join(violation.packs)})."
        ),
        fingerprint=f"violation/{violation.tenant_id}/{violation.key_id}/{violation.type}",
    )
