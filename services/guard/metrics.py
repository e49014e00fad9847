"""What the guard measures beside its RPCs."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from services.guard.verdict import Direction, RiskLevel, Verdict

VIOLATIONS = Counter(
    "llm_security_violations_total", "Findings of high or critical severity, by category.", ["type", "direction"]
)
VERDICTS = Counter("llm_guard_verdicts_total", "Verdicts, by what to do.", ["action", "direction"])
ESCALATIONS = Counter(
    "llm_guard_escalations_total",
    "Texts for a slower layer, and what became of them.",
    ["layer", "reason", "outcome"],
)
LATE_CHARACTERS = Histogram(
    "llm_guard_late_characters",
    "Characters said since the beginning of the window for which the guard model stopped an answer that was not held.",
    buckets=(100, 200, 400, 800, 1600, 3200, 6400, 12800),
)
PACKS_LOADS = Counter(
    "llmmesh_guard_packs_loads_total", "Rule packs read while running: taken into force, or refused.", ["outcome"]
)
PACKS_REFUSED = Gauge(
    "llmmesh_guard_packs_refused", "1 while the newest rule packs are refused and older ones are in force, else 0."
)
CHECK_SECONDS = Histogram(
    "llm_guard_check_seconds",
    "Time to judge a prompt or text, or all pieces of an answer.",
    ["direction"],
    buckets=(0.0001, 0.0002, 0.0003, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5),
)


def count(verdict: Verdict, direction: Direction) -> None:
    """Count a verdict and what it found."""
    side = direction.name.lower()
    VERDICTS.labels(verdict.action.name.lower(), side).inc()
    CHECK_SECONDS.labels(side).observe(sum(verdict.layer_seconds.values()))
    for found in verdict.findings:
        if found.severity >= RiskLevel.HIGH:
            VIOLATIONS.labels(found.category, side).inc()
