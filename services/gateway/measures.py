"""What the gateway measures beyond its RPCs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from prometheus_client import Counter, Gauge, Histogram

from meshkit.metrics import LATENCY_BUCKETS

REQUESTS = Counter(
    "llm_requests_total",
    "Requests ended, by model, by what the cache said and by outcome.",
    ["model", "cache", "outcome"],
)
REQUEST_SECONDS = Histogram(
    "llm_request_duration_seconds",
    "Time from a request's arrival to the end of its answer.",
    ["model", "cache"],
    buckets=LATENCY_BUCKETS,
)
FIRST_BYTE_SECONDS = Histogram(
    "llm_time_to_first_byte_seconds",
    "Time from a request's arrival to the first piece of its answer.",
    ["model", "cache"],
    buckets=LATENCY_BUCKETS,
)
OVERHEAD_SECONDS = Histogram(
    "llmmesh_gateway_overhead_seconds",
    "Time of a request that was spent by the mesh, not by the provider.",
    ["cache"],
    buckets=LATENCY_BUCKETS,
)
TOKENS = Counter("gen_ai_client_token_usage_total", "Tokens of answers from providers.", ["model", "token_type"])
STOPPED = Counter(
    "llm_stopped_answers_total",
    "Answers that the mesh ended: what may not be said, what only repeats, what may cost no more.",
    ["model", "reason"],
)
FORMED_ANSWERS = Counter(
    "llmmesh_gateway_formed_answers_total",
    "Answers that did not have the form asked for, and what became of them.",
    ["outcome"],
)
OUTBOX_LENGTH = Gauge("llmmesh_outbox_length", "Items waiting to reach another room.", ["outbox"])
OUTBOX_DROPPED = Counter("llmmesh_outbox_dropped_total", "Items that never reached the other room.", ["outbox"])
POLICY_AGE_SECONDS = Gauge(
    "llmmesh_policy_age_seconds", "Time since the stream of tenant policies broke; 0 while it runs."
)
RATE_LIMITED = Counter(
    "llmmesh_rate_limited_total", "Requests refused for coming too fast, by level and limit.", ["level", "limit"]
)
RATE_LIMITS_LOCAL = Gauge(
    "llmmesh_rate_limits_local", "1 while this gateway counts requests by itself, 0 while Redis counts for all."
)


@dataclass(frozen=True, slots=True)
class Meters:
    """What one kind of request is counted on."""

    requests: Counter
    seconds: Histogram
    first_byte_seconds: Histogram
    overhead_seconds: Histogram


@cache
def meters_of(model: str, cache_status: str, outcome: str) -> Meters:
    """The meters with their labels; finding labels costs more than counting."""
    return Meters(
        REQUESTS.labels(model, cache_status, outcome),
        REQUEST_SECONDS.labels(model, cache_status),
        FIRST_BYTE_SECONDS.labels(model, cache_status),
        OVERHEAD_SECONDS.labels(cache_status),
    )
