"""What the cache did for tenants, by model and day: counted, and summed up."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, unquote

from llmmesh.cache.v1 import cache_pb2
from services.cache.errorbound import upper_bound

KEPT_DAYS = 30
CONFIDENCE = 0.95
BANDS = 100
"""Similarity is told apart in so many bands."""
OUTCOMES = ("exact", "semantic", "miss", "unavailable")


class Tally:
    """Counts on their way to where they are kept, by tenant and day; a field is a model, a kind and a detail."""

    def __init__(self) -> None:
        self._counts: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)

    def add(self, tenant_id: str, model: str, kind: str, detail: str = "", count: int = 1) -> None:
        """Count something that happened today."""
        self._counts[tenant_id, day(datetime.now(UTC))][f"{quote(model, safe='')}|{kind}|{detail}"] += count

    def use(self, use: cache_pb2.CacheUse) -> None:
        """Count what the cache did for one request."""
        self.add(use.tenant_id, use.model, use.outcome)
        if use.outcome == "semantic":
            self.add(use.tenant_id, use.model, "similarity", str(int(use.similarity * BANDS)))
        if use.currency_code and use.saved_micros:
            self.add(use.tenant_id, use.model, "saved", use.currency_code, use.saved_micros)
        if use.HasField("saved_time"):
            self.add(use.tenant_id, use.model, "saved_ms", count=use.saved_time.ToMilliseconds())

    def vetoed(self, tenant_id: str, model: str, check: str) -> None:
        """Count a similar question that the verifier refused."""
        self.add(tenant_id, model, "veto", check)

    def taken(self) -> Mapping[tuple[str, str], Mapping[str, int]]:
        """Everything counted since the last time."""
        taken, self._counts = self._counts, defaultdict(Counter)
        return taken


def day(time: datetime) -> str:
    """The day of a time, as counts are kept by."""
    return time.strftime("%Y%m%d")


def last_days(days: int) -> list[str]:
    """So many days, today the last."""
    today = datetime.now(UTC)
    return [day(today - timedelta(days=back)) for back in reversed(range(days))]


def summed(days: Iterable[Mapping[str, int]], only_model: str) -> list[cache_pb2.CacheStats]:
    """Statistics by model, of all days together."""
    total: Counter[str] = Counter()
    for counts in days:
        total.update(counts)
    by_model: defaultdict[str, dict[tuple[str, str], int]] = defaultdict(dict)
    for field, count in total.items():
        model, kind, detail = field.split("|", 2)
        by_model[unquote(model)][kind, detail] = count
    return [_stats(model, by_model[model]) for model in sorted(by_model) if only_model in ("", model)]


def _stats(model: str, counts: Mapping[tuple[str, str], int]) -> cache_pb2.CacheStats:
    exact, semantic, misses, unavailable = (counts.get((outcome, ""), 0) for outcome in OUTCOMES)
    requests = exact + semantic + misses + unavailable
    right, wrong = counts.get(("right", ""), 0), counts.get(("wrong", ""), 0)
    stats = cache_pb2.CacheStats(
        model=model,
        requests=requests,
        exact_hits=exact,
        semantic_hits=semantic,
        misses=misses,
        unavailable=unavailable,
        hit_rate=(exact + semantic) / requests if requests else 0.0,
        similarities=[
            cache_pb2.SimilarityCount(at_least=int(band) / BANDS, count=count)
            for band, count in sorted(_details(counts, "similarity"), key=lambda pair: int(pair[0]))
        ],
        vetoes=dict(_details(counts, "veto")),
        reported_right=right,
        reported_wrong=wrong,
        saved=[
            cache_pb2.SavedMoney(currency_code=currency, micros=micros)
            for currency, micros in sorted(_details(counts, "saved"))
        ],
    )
    stats.saved_time.FromMilliseconds(counts.get(("saved_ms", ""), 0))
    if right + wrong:
        stats.false_hit_rate = wrong / (right + wrong)
        stats.false_hit_rate_at_most = upper_bound(wrong, right + wrong, CONFIDENCE)
    return stats


def _details(counts: Mapping[tuple[str, str], int], wanted: str) -> list[tuple[str, int]]:
    return [(detail, count) for (kind, detail), count in counts.items() if kind == wanted]
