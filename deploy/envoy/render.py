"""Renders Envoy's configuration: `python -m deploy.envoy.render --target local|compose|kubernetes`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from deploy.envoy.catalogue import ROOMS, read_methods
from deploy.envoy.clusters import all_clusters
from deploy.envoy.edge import edge_listener
from deploy.envoy.issuers import read_issuers
from deploy.envoy.mesh import mesh_listener
from deploy.envoy.schema import Node, extension, socket
from deploy.envoy.telemetry import STATS, status_listener
from deploy.envoy.topology import Address, Topology, collector_from, containers, one_machine, tls_from

FIRST_PORT = 50051


def bootstrap(topology: Topology) -> Node:
    """The whole configuration of one Envoy."""
    methods = read_methods()
    return {
        "node": {"id": "llmmesh", "cluster": "llmmesh"},
        "admin": {"address": socket(topology.admin)},
        "stats_config": STATS,
        "overload_manager": _overload(topology),
        "static_resources": {
            "listeners": [
                edge_listener(topology, methods),
                mesh_listener(topology, methods),
                status_listener(topology),
            ],
            "clusters": all_clusters(topology),
        },
    }


def to_yaml(topology: Topology) -> str:
    """The configuration as Envoy reads it."""
    return yaml.dump(bootstrap(topology), Dumper=_NoAliases, sort_keys=False, width=120)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the configuration to standard output or a file."""
    asked = _parser().parse_args(arguments)
    text = to_yaml(_topology(asked))
    if asked.output:
        asked.output.write_text(text)
    else:
        sys.stdout.write(text)


def _overload(topology: Topology) -> Node:
    """Refuse clients' connections before memory or descriptors run out."""
    monitor = extension(
        "envoy.resource_monitors.global_downstream_max_connections",
        "extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
        max_active_downstream_connections=topology.most_connections,
    )
    return {"resource_monitors": [monitor]}


def _topology(asked: argparse.Namespace) -> Topology:
    collector, issuers, tls = collector_from(asked.otlp_endpoint), read_issuers(asked.issuers), tls_from(os.environ)
    if asked.target == "local":
        return one_machine(_endpoints(asked.endpoint), edge=asked.edge, collector=collector, issuers=issuers, tls=tls)
    pattern = "{room}" if asked.target == "compose" else f"{asked.release}-{{room}}"
    return containers(pattern, collector=collector, issuers=issuers, tls=tls)


def _endpoints(given: Sequence[str]) -> dict[str, list[Address]]:
    """Replicas by room: those given as `room=host:port`, one on its usual port for every other room."""
    endpoints: dict[str, list[Address]] = {}
    for text in given:
        room, _, address = text.partition("=")
        endpoints.setdefault(room, []).append(Address.parse(address))
    return {
        room: endpoints.get(room, [Address("127.0.0.1", FIRST_PORT + position)]) for position, room in enumerate(ROOMS)
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.envoy.render", description=__doc__)
    parser.add_argument(
        "--target",
        choices=("local", "compose", "kubernetes"),
        default="local",
        help="where it is to run (default: local)",
    )
    parser.add_argument(
        "--edge", type=Address.parse, default=Address("127.0.0.1", 8080), help="local: host:port of the edge"
    )
    parser.add_argument(
        "--endpoint",
        action="append",
        default=[],
        metavar="ROOM=HOST:PORT",
        help="local: a service's replica; may be repeated",
    )
    parser.add_argument("--release", default="llmmesh", help="kubernetes: what the services' names begin with")
    parser.add_argument(
        "--otlp-endpoint",
        default=os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", ""),
        help="collector for traces (default: $OTEL_EXPORTER_OTLP_ENDPOINT; empty: no tracing)",
    )
    parser.add_argument(
        "--issuers",
        type=Path,
        default=os.environ.get("LLMMESH_ISSUERS") or None,
        help="YAML file of issuers whose access tokens are taken (default: $LLMMESH_ISSUERS)",
    )
    parser.add_argument("-o", "--output", type=Path, help="file to write (default: standard output)")
    return parser


class _NoAliases(yaml.SafeDumper):
    """Repeats shared parts instead of anchoring them: the file is read by people."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        return True


if __name__ == "__main__":
    main()
