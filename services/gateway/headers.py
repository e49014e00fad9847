"""Response headers, sent as initial metadata; the edge turns them into HTTP headers."""

from __future__ import annotations

from collections.abc import Sequence

from services.gateway.exchange import Report, Route, cache_word

Headers = Sequence[tuple[str, str]]


def money(micros: int) -> str:
    """Micro-units as a decimal number without trailing zeros, such as "0.001234" or "0"."""
    whole, rest = divmod(micros, 1_000_000)
    return f"{whole}.{rest:06d}".rstrip("0").rstrip(".")


def opening_headers(route: Route) -> Headers:
    """What is known when a stream begins; its cost is not, unless it is nothing."""
    headers = _common(route.request_id, route.provider, cache_word(route.cache_status), route.overhead_seconds)
    headers += route.limit_headers
    if route.free_in:
        headers.append(("x-llmmesh-cost", f"0 {route.free_in}"))
    return headers


def closing_headers(report: Report) -> Headers:
    """What is known when an answer is complete."""
    headers = _common(report.request_id, report.provider, cache_word(report.cache_status), report.overhead_seconds)
    headers += report.limit_headers
    if report.cost_micros is not None:
        headers.append(("x-llmmesh-cost", f"{money(report.cost_micros)} {report.currency_code}"))
    return headers


def _common(request_id: str, provider: str, cache: str, overhead_seconds: float) -> list[tuple[str, str]]:
    headers = [
        ("x-request-id", request_id),
        ("x-llmmesh-provider", provider),
        ("x-llmmesh-overhead-ms", f"{overhead_seconds * 1000:.2f}"),
    ]
    if cache:
        headers.append(("x-llmmesh-cache", cache))
    return headers
