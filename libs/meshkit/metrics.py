"""What every room measures of its RPCs, and the endpoint Prometheus reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Counter, Histogram, start_http_server

LATENCY_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)

HANDLED = Counter(
    "grpc_server_handled_total", "RPCs ended, by status code.", ["grpc_service", "grpc_method", "grpc_code"]
)
HANDLING_SECONDS = Histogram(
    "grpc_server_handling_seconds",
    "Time from the start of an RPC to its end.",
    ["grpc_service", "grpc_method"],
    buckets=LATENCY_BUCKETS,
)


@contextmanager
def exposed(listen: str) -> Iterator[int]:
    """Serve /metrics on `listen` inside the block; yields the port. An empty `listen` serves nothing."""
    if not listen:
        yield 0
        return
    host, _, port = listen.rpartition(":")
    server, thread = start_http_server(int(port), host.strip("[]"))  # brackets of IPv6, as gRPC wants them
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)
