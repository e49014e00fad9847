"""What the router measures of its providers."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

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
TOKENS_PER_SECOND = Histogram(
    "llmmesh_router_tokens_per_second",
    "Speed of an answer after its first token, where the provider counts its tokens.",
    ["deployment"],
    buckets=(1, 2, 5, 10, 20, 30, 50, 75, 100, 150, 200, 300, 500, 1000),
)
SHARE_PERCENT = Gauge(
    "llmmesh_router_share_percent",
    "How many of a hundred requests may go to the deployment first: 0 while it is left alone or probed.",
    ["deployment"],
)
OPENINGS = Counter(
    "llmmesh_router_breaker_openings_total",
    "How often a deployment was left alone because it failed too often.",
    ["deployment"],
)
SHARING = Gauge(
    "llmmesh_router_breakers_shared", "Whether this router and the others hear of each other's breakers: 1 or 0."
)
CHECKS = Counter(
    "llmmesh_router_health_checks_total", "Health checks of deployments, by what was told.", ["deployment", "health"]
)
RULE_FAILURES = Counter(
    "llmmesh_router_rule_failures_total",
    "Conditions of rules that had no answer for a request; a rule that restricts was applied all the same.",
    ["rule"],
)
ROUTES_LOADS = Counter(
    "llmmesh_router_routes_loads_total", "Routes files read while running: taken into force, or refused.", ["outcome"]
)
ROUTES_REFUSED = Gauge(
    "llmmesh_router_routes_refused", "1 while the newest routes file is refused and an older one is in force, else 0."
)
HEDGES = Counter(
    "llmmesh_router_hedges_total",
    "Deployments asked beside a silent one, by whether they answered first.",
    ["deployment", "outcome"],
)
SHADOW_COPIES = Counter(
    "llmmesh_router_shadow_copies_total",
    "Copies of requests meant for shadows: sent, or not because too many were under way (busy).",
    ["deployment", "outcome"],
)
SHADOW_TOKENS = Counter(
    "llmmesh_router_shadow_tokens_total",
    "Tokens that shadows read and wrote; no caller is billed for them.",
    ["deployment"],
)
SHADOW_COST_MICROS = Counter(
    "llmmesh_router_shadow_cost_micros_total",
    "What shadows cost, in micro-units of billing's base currency; no caller is billed for it.",
    ["deployment"],
)
