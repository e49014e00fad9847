"""The mesh listener: how a room reaches another by the name of its service."""

from __future__ import annotations

from collections.abc import Sequence

from deploy.envoy.catalogue import Method
from deploy.envoy.encryption import from_rooms
from deploy.envoy.routes import route
from deploy.envoy.schema import NEVER_REFUSED, Node, http_filter, listener
from deploy.envoy.telemetry import REQUEST_ID, rpc_metrics, tracing
from deploy.envoy.topology import Topology

CONNECTION_SECONDS = 300
"""How long a client keeps to one Envoy: it looks for others, such as one added since, when it connects anew."""


def mesh_listener(topology: Topology, methods: Sequence[Method]) -> Node:
    """Where rooms connect. Identity headers pass: whoever reaches this port, or is certified for it, is trusted."""
    return listener(
        "mesh",
        topology.mesh,
        {
            "stat_prefix": "mesh",
            "codec_type": "HTTP2",
            "route_config": {
                "virtual_hosts": [
                    {"name": "mesh", "domains": ["*"], "routes": [route(method) for method in methods]},
                ]
            },
            "http_filters": [rpc_metrics(methods), http_filter("router", "Router")],
            "request_id_extension": REQUEST_ID,
            # Rooms hold streams open for news that may be hours away; deadlines are the callers'.
            "stream_idle_timeout": "0s",
            # The client is told to connect anew; its streams end over the old connection, whenever that is.
            "common_http_protocol_options": {"max_connection_duration": f"{CONNECTION_SECONDS}s"},
            **tracing(topology),
        },
        transport=from_rooms(topology.tls) if topology.tls else None,
        **NEVER_REFUSED,
    )
