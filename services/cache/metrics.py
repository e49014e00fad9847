"""What the cache measures beside its RPCs."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

HITS = Counter("llm_cache_hits_total", "Requests answered from the cache, as gateways tell.", ["level"])
LOOKUPS = Counter("llm_cache_lookups_total", "Lookups by outcome: hit, miss or unavailable.", ["level", "outcome"])
LOOKUP_SECONDS = Histogram(
    "llm_cache_lookup_seconds",
    "Time of a lookup.",
    ["level"],
    buckets=(0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1),
)
VETOES = Counter("llm_cache_vetoes_total", "Similar questions that verification refused, by check.", ["check"])
SIMILARITY = Histogram(
    "llm_cache_similarity",
    "Cosine similarity of semantic hits.",
    buckets=(0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99, 1.0),
)
STORES = Counter("llm_cache_stores_total", "Answers stored, refused or lost, by outcome.", ["level", "outcome"])
UNUSABLE = Counter(
    "llm_cache_unusable_entries_total",
    "Stored entries that were no answer, by flaw: damaged, locked, outdated or tampered.",
    ["level", "flaw"],
)
ALARMS_LOST = Counter("llm_cache_alarms_lost_total", "Tampered entries that the audit log was not told of.")
SWEPT = Counter("llm_cache_swept_entries_total", "Semantic answers removed, by reason: expired or surplus.", ["reason"])
ACCURATE_LOOKUPS = Counter(
    "llm_cache_accurate_lookups_total",
    "Semantic lookups with a plausible candidate, for which the accurate model is asked.",
)
CERTAINTY = Histogram(
    "llm_cache_certainty",
    "How sure the verifier was of the candidates it judged.",
    buckets=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0),
)
