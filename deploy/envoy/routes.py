"""Which cluster an RPC goes to, and what is tried again."""

from __future__ import annotations

from deploy.envoy.catalogue import Method
from deploy.envoy.schema import Node, typed

_READS = ("Check", "Count", "Explain", "Get", "List", "Lookup")
"""Verbs of RPCs that change nothing."""

REPEATABLE = frozenset(
    {
        "/llmmesh.billing.v1.BillingService/CreateReservation",
        "/llmmesh.billing.v1.BillingService/ExtendReservation",
        "/llmmesh.billing.v1.BillingService/CommitReservation",
        "/llmmesh.billing.v1.BillingService/CancelReservation",
        "/llmmesh.billing.v1.BillingService/RecordUsage",
        "/llmmesh.inference.v1.InferenceService/EmbedText",
        "/llmmesh.inference.v1.InferenceService/ScorePairs",
    }
)
"""RPCs that may run twice: a `request_id` makes the repeat a no-op, or the work is pure and ours."""

_NEVER_STARTED = "connect-failure,refused-stream,reset-before-request"
"""Failures after which the upstream has seen nothing of the call."""


def route(method: Method, timeout_seconds: int = 0, **fields: object) -> Node:
    """The route of one RPC; a timeout of 0 leaves the deadline to the caller."""
    return {
        "match": {"path": method.path, "grpc": {}},
        "route": {
            "cluster": method.room,
            "timeout": f"{timeout_seconds}s",
            "retry_policy": _retries(method),
        },
        **fields,
    }


def may_repeat(method: Method) -> bool:
    """Whether running the RPC a second time does no harm: no money spent twice, no provider asked twice."""
    return method.name.startswith(_READS) or method.path in REPEATABLE


def _retries(method: Method) -> Node:
    """Try again on another replica; once the first message is through, Envoy never retries."""
    return {
        "retry_on": f"unavailable,reset,{_NEVER_STARTED}" if may_repeat(method) else _NEVER_STARTED,
        "num_retries": 2,
        "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.25s"},
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": typed("extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"),
            }
        ],
        "host_selection_retry_max_attempts": 3,
    }
