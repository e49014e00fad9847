"""Where everything listens, on one machine, under Compose and in Kubernetes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from deploy.envoy.catalogue import DESCRIPTOR_SET, ROOMS
from deploy.envoy.issuers import Issuer

GRPC_PORT = 50051
OTLP_PORT = 4317


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `host:port`."""
        host, _, port = text.rpartition(":")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Tls:
    """Files (PEM) of the certificate that Envoy shows to rooms and of the authority it trusts."""

    certificate: str
    key: str
    authority: str


@dataclass(frozen=True, slots=True)
class Topology:
    """The one source every part of the configuration is rendered from."""

    endpoints: Mapping[str, Sequence[Address]]
    """Replicas of each room. With `dns`, one name that resolves to all of them."""
    edge: Address
    """REST, SSE and native gRPC for clients."""
    mesh: Address
    """gRPC from room to room."""
    admin: Address
    """Envoy's own interface: loopback only, it can stop the process."""
    status: Address
    """Readiness and Prometheus metrics."""
    dns: bool = False
    descriptor_set: str = str(DESCRIPTOR_SET)
    """Where Envoy finds the descriptor set."""
    access_log: str = "/dev/stdout"
    collector: Address | None = None
    """OTLP collector for traces; none turns tracing off."""
    issuers: Sequence[Issuer] = ()
    """Whose access tokens are taken beside our own."""
    tls: Tls | None = None
    """Certificates between Envoy and the rooms; none leaves them plain."""
    jwks_seconds: int = 60
    """How long our own key set is used before it is fetched again."""
    most_connections: int = 10_000
    """Clients connected at the same time."""


def one_machine(
    endpoints: Mapping[str, Sequence[Address]],
    *,
    edge: Address = Address("127.0.0.1", 8080),
    mesh_port: int = 15001,
    admin_port: int = 15000,
    status_port: int = 9107,
    access_log: str = "/dev/stdout",
    collector: Address | None = None,
    issuers: Sequence[Issuer] = (),
    tls: Tls | None = None,
    jwks_seconds: int = 60,
    most_connections: int = 10_000,
) -> Topology:
    """Everything on loopback, each room and each replica on a port of its own."""
    return Topology(
        endpoints=endpoints,
        edge=edge,
        mesh=Address("127.0.0.1", mesh_port),
        admin=Address("127.0.0.1", admin_port),
        status=Address("127.0.0.1", status_port),
        access_log=access_log,
        collector=collector,
        issuers=issuers,
        tls=tls,
        jwks_seconds=jwks_seconds,
        most_connections=most_connections,
    )


def containers(
    host_pattern: str,
    *,
    collector: Address | None = None,
    issuers: Sequence[Issuer] = (),
    tls: Tls | None = None,
) -> Topology:
    """Rooms behind DNS names made from `host_pattern`, such as `llmmesh-{room}`."""
    return Topology(
        endpoints={room: [Address(host_pattern.format(room=room), GRPC_PORT)] for room in ROOMS},
        edge=Address("0.0.0.0", 8080),  # noqa: S104 - the container's own network decides who reaches it
        mesh=Address("0.0.0.0", 15001),  # noqa: S104
        admin=Address("127.0.0.1", 15000),
        status=Address("0.0.0.0", 9090),  # noqa: S104
        dns=True,
        descriptor_set="/etc/envoy/mesh.binpb",
        collector=collector,
        issuers=issuers,
        tls=tls,
    )


def collector_from(otlp_endpoint: str) -> Address | None:
    """The collector an OTLP endpoint such as `http://collector:4317` names; none when it is empty."""
    if not otlp_endpoint:
        return None
    url = urlsplit(otlp_endpoint if "//" in otlp_endpoint else f"//{otlp_endpoint}")
    return Address(url.hostname or "127.0.0.1", url.port or OTLP_PORT)


def tls_from(environment: Mapping[str, str]) -> Tls | None:
    """The files that `LLMMESH_TLS_*` name, as rooms read them too; None when they name none.

    Raises:
        ValueError: If only some of them are named.
    """
    names = [environment.get(f"LLMMESH_TLS_{part}", "") for part in ("CERTIFICATE", "KEY", "AUTHORITY")]
    if not any(names):
        return None
    if not all(names):
        raise ValueError("LLMMESH_TLS_CERTIFICATE, LLMMESH_TLS_KEY and LLMMESH_TLS_AUTHORITY go together")
    return Tls(*names)
