"""The rooms as Envoy sees them: replicas, their health, and how much each may be asked at once."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from deploy.envoy.encryption import to_room, to_website
from deploy.envoy.issuers import Issuer
from deploy.envoy.schema import Node, extension, socket, typed
from deploy.envoy.topology import Address, Topology

JWKS = "edge"
"""The edge listener itself, seen as an upstream: signing keys are fetched through the transcoder."""
COLLECTOR = "otel_collector"
ADMIN = "envoy_admin"


def all_clusters(topology: Topology) -> list[Node]:
    """Every room, and what Envoy itself talks to."""
    rooms = [_room(topology, name, replicas) for name, replicas in topology.endpoints.items()]
    own = [_plain(JWKS, _reachable(topology.edge)), _plain(ADMIN, topology.admin)]
    collector = [_collector(topology.collector)] if topology.collector else []
    return [*rooms, *own, *collector, *map(_issuer, topology.issuers)]


def key_cluster(issuer: Issuer) -> str:
    """The name of the cluster that an issuer's keys come from."""
    return f"issuer_{issuer.name}"


def _issuer(issuer: Issuer) -> Node:
    url = urlsplit(issuer.jwks_uri)
    secure, host = url.scheme == "https", url.hostname or ""
    cluster = _cluster(key_cluster(issuer), [Address(host, url.port or (443 if secure else 80))], dns=True)
    return {**cluster, "transport_socket": to_website(host, issuer.ca_file)} if secure else cluster


def _reachable(bound: Address) -> Address:
    """How this very process reaches an address it listens on."""
    everywhere = bound.host in ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
    return Address("127.0.0.1", bound.port) if everywhere else bound


def _room(topology: Topology, name: str, replicas: Sequence[Address]) -> Node:
    return {
        **_cluster(name, replicas, dns=topology.dns),
        **({"transport_socket": to_room(topology.tls, name)} if topology.tls else {}),
        **_HTTP2,
        "lb_policy": "ROUND_ROBIN",
        "health_checks": [_HEALTH_CHECK],
        "outlier_detection": _OUTLIERS,
        "circuit_breakers": {"thresholds": [_LIMITS]},
        # With nobody healthy a call fails at once instead of being sent to a dead host.
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        # A replica gone from DNS gets no new calls, whatever its health check said last.
        "ignore_health_on_host_removal": topology.dns,
        "upstream_connection_options": {"tcp_keepalive": {"keepalive_time": 30, "keepalive_interval": 10}},
    }


def _plain(name: str, address: Address) -> Node:
    return _cluster(name, [address], dns=False)


def _collector(address: Address) -> Node:
    return {**_cluster(COLLECTOR, [address], dns=True), **_HTTP2}


def _cluster(name: str, replicas: Sequence[Address], *, dns: bool) -> Node:
    hosts = [{"endpoint": {"address": socket(replica)}} for replica in replicas]
    return {
        "name": name,
        **({"cluster_type": _DNS} if dns else {"type": "STATIC"}),
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": hosts}]},
    }


_DNS = extension(
    "envoy.cluster.dns",
    "extensions.clusters.dns.v3.DnsCluster",
    dns_refresh_rate="5s",
    dns_lookup_family="V4_PREFERRED",
)
"""Every address behind a name is a replica: in Kubernetes the name of a headless service."""

_HTTP2: Node = {
    "typed_extension_protocol_options": {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": typed(
            "extensions.upstreams.http.v3.HttpProtocolOptions",
            explicit_http_config={"http2_protocol_options": {}},
        )
    }
}

_HEALTH_CHECK: Node = {
    "grpc_health_check": {},
    # A busy interpreter may answer late; a dead process refuses the connection at once.
    "timeout": "3s",
    "interval": "1s",
    # Of a room that is starting: others wait for it.
    "no_traffic_interval": "0.25s",
    "unhealthy_interval": "0.5s",
    "no_traffic_healthy_interval": "1s",
    "unhealthy_threshold": 2,
    "healthy_threshold": 1,
}

_OUTLIERS: Node = {
    # Only failures of the connection count. UNAVAILABLE said by a room is an answer (no provider, no guard):
    # ejecting the room for it would take the whole mesh down with one provider.
    "split_external_local_origin_errors": True,
    "consecutive_local_origin_failure": 3,
    "enforcing_consecutive_local_origin_failure": 100,
    "enforcing_consecutive_5xx": 0,
    "enforcing_consecutive_gateway_failure": 0,
    "enforcing_success_rate": 0,
    "enforcing_local_origin_success_rate": 0,
    "interval": "1s",
    "base_ejection_time": "5s",
    "max_ejection_time": "30s",
    "max_ejection_percent": 50,
    # A lone replica is left to its health check.
    "always_eject_one_host": False,
}

_LIMITS: Node = {
    "max_connections": 1024,
    "max_pending_requests": 1024,
    "max_requests": 4096,
    # Retries may add a fifth to the load, never multiply it.
    "retry_budget": {"budget_percent": {"value": 20}, "min_retry_concurrency": 3},
}
