"""OpenTelemetry tracing over gRPC: off until the usual OTEL_* variables name a collector."""

from __future__ import annotations

import os
from typing import Any

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def tracing_enabled() -> bool:
    """Whether the environment names a collector and does not turn tracing off."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if os.environ.get("OTEL_TRACES_EXPORTER", "otlp") == "none":
        return False
    return any(os.environ.get(name) for name in _ENDPOINTS)


def start_tracing(room: str) -> None:
    """Export spans from now on when tracing is enabled.

    The last ones are sent when the process ends, which takes up to 30 s with the collector away: by then all else that
    is owed to others has been delivered.
    """
    if not tracing_enabled():
        return
    # Imported only when used: the SDK and its exporter would cost every process 0.4 s of its start.
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    name = os.environ.get("OTEL_SERVICE_NAME", f"llmmesh-{room}")
    provider = TracerProvider(resource=Resource.create({"service.name": name}), shutdown_on_exit=True)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


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
