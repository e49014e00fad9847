"""What the gateway measures beyond its RPCs."""

from __future__ import annotations

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
OUTBOX_LENGTH = Gauge("llmmesh_outbox_length", "Items waiting to reach another room.", ["outbox"])
OUTBOX_DROPPED = Counter("llmmesh_outbox_dropped_total", "Items that never reached the other room.", ["outbox"])
POLICY_AGE_SECONDS = Gauge(
    "llmmesh_policy_age_seconds", "Time since the stream of tenant policies broke; 0 while it runs."
)
