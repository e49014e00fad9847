"""What the router measures of its providers."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

from meshkit.metrics import LATENCY_BUCKETS

ATTEMPTS = Counter(
    "llmmesh_router_attempts_total",
    "Calls to deployments, by how they ended: completed, broken, cancelled, or the kind of failure.",
    ["deployment", "outcome"],
)
FIRST_TOKEN_SECONDS = Histogram(
    "llmmesh_router_first_token_seconds",
    "Time from a call to its first token; the whole call for embeddings.",
    ["deployment"],
    buckets=LATENCY_BUCKETS,
)
