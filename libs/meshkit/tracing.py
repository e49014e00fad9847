"""OpenTelemetry tracing over gRPC: off until the usual OTEL_* variables name a collector."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def tracing_enabled() -> bool:
    """Whether the environment names a collector and does not turn tracing off."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if os.environ.get("OTEL_TRACES_EXPORTER", "otlp") == "none":
        return False
    return any(os.environ.get(name) for name in _ENDPOINTS)


@contextmanager
def tracing(room: str) -> Iterator[None]:
    """Export spans inside the block when tracing is enabled; the last ones are flushed at its end."""
    if not tracing_enabled():
        yield
        return
    # Imported only when used: the SDK and its exporter would cost every process 0.4 s of its start.
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    name = os.environ.get("OTEL_SERVICE_NAME", f"llmmesh-{room}")
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        provider.shutdown()


def server_interceptors() -> list[Any]:
    """Interceptors that open a span for each RPC served; none when tracing is off."""
    return [_instrumentation().aio_server_interceptor()] if tracing_enabled() else []


def client_interceptors() -> list[Any]:
    """Interceptors that open a span for each call made; none when tracing is off."""
    return list(_instrumentation().aio_client_interceptors()) if tracing_enabled() else []


def _instrumentation() -> Any:
    """The library's module, which is untyped."""
    from opentelemetry.instrumentation import grpc

    return grpc
