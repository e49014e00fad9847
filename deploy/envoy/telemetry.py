"""What Envoy tells about itself: access log, metrics, traces."""

from __future__ import annotations

from collections.abc import Sequence

from deploy.envoy.catalogue import Method
from deploy.envoy.clusters import ADMIN, COLLECTOR
from deploy.envoy.schema import NEVER_REFUSED, Node, extension, http_filter, listener, typed
from deploy.envoy.topology import Topology

_FIELDS = {
    "time": "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "trace_id": "%TRACE_ID%",
    "tenant": "%REQ(X-LLMMESH-TENANT)%",
    "key": "%REQ(X-LLMMESH-KEY)%",
    "method": "%REQ(X-ENVOY-ORIGINAL-METHOD?:METHOD)%",
    "path": "%PATH(NQ:ORIG_OR_PATH)%",
    "rpc": "%PATH(NQ:PATH)%",
    "protocol": "%PROTOCOL%",
    "status": "%RESPONSE_CODE%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "flags": "%RESPONSE_FLAGS%",
    "cache": "%RESP(X-LLMMESH-CACHE)%",
    "provider": "%RESP(X-LLMMESH-PROVIDER)%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
    "duration_ms": "%DURATION%",
    "first_byte_ms": "%RESPONSE_DURATION%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "upstream": "%UPSTREAM_HOST%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
}
"""Neither the key itself, nor a query, nor a byte of a body."""

_RPC = (
    r"^cluster\.[\w-]+\.grpc(\.{})\.(?:success|failure|total|\d+|(?:request|response)_message_count|upstream_rq_time)$"
)

STATS: Node = {
    # The default tags cut gRPC names at the first dot, so packages end up as services.
    "use_all_default_tags": False,
    "stats_tags": [
        {"tag_name": "envoy.cluster_name"},
        {"tag_name": "envoy.http_conn_manager_prefix"},
        {"tag_name": "envoy.response_code"},
        {"tag_name": "envoy.response_code_class"},
        {"tag_name": "envoy.listener_address"},
        {"tag_name": "grpc_service", "regex": _RPC.format(r"([\w.]+)\.\w+")},
        {"tag_name": "grpc_method", "regex": _RPC.format(r"[\w.]+\.(\w+)")},
    ],
}


def access_log(path: str) -> list[Node]:
    """One JSON object per request; health checks stay out."""
    return [
        {
            **extension(
                "envoy.access_loggers.file",
                "extensions.access_loggers.file.v3.FileAccessLog",
                path=path,
                log_format={"json_format": _FIELDS, "omit_empty_values": True},
            ),
            "filter": {"not_health_check_filter": {}},
        }
    ]


def rpc_metrics(methods: Sequence[Method]) -> Node:
    """Counters and times per RPC; only for RPCs that exist, so that callers cannot invent series."""
    names: dict[str, list[str]] = {}
    for method in methods:
        names.setdefault(method.service, []).append(method.name)
    return http_filter(
        "grpc_stats",
        "FilterConfig",
        individual_method_stats_allowlist={
            "services": [{"name": service, "method_names": listed} for service, listed in names.items()]
        },
        enable_upstream_stats=True,
    )


def tracing(topology: Topology) -> Node:
    """Spans over OTLP; nothing when no collector is named."""
    if topology.collector is None:
        return {}
    provider = extension(
        "envoy.tracers.opentelemetry",
        "config.trace.v3.OpenTelemetryConfig",
        grpc_service={"envoy_grpc": {"cluster_name": COLLECTOR}, "timeout": "1s"},
        service_name="envoy",
    )
    return {"tracing": {"provider": provider, "random_sampling": {"value": 100}}}


def status_listener(topology: Topology) -> Node:
    """Readiness and metrics for kubelet and Prometheus, and nothing else of the admin interface."""
    routes = [{"match": {"path": path}, "route": {"cluster": ADMIN}} for path in ("/ready", "/stats/prometheus")]
    return listener(
        "status",
        topology.status,
        {
            "stat_prefix": "status",
            "route_config": {"virtual_hosts": [{"name": "status", "domains": ["*"], "routes": routes}]},
            "http_filters": [http_filter("router", "Router")],
        },
        **NEVER_REFUSED,
    )


REQUEST_ID: Node = {
    # Packing the sampling decision would change the id from hop to hop.
    "typed_config": typed("extensions.request_id.uuid.v3.UuidRequestIdConfig", pack_trace_reason=False),
}
