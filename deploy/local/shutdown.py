"""Stopping in order: Envoy stops taking calls, running ones end, then rooms, then stores."""

from __future__ import annotations

import json
import time
import urllib.request
from contextlib import suppress

from deploy.local.programs import DRAIN_SECONDS
from deploy.local.report import read_mesh_env
from deploy.local.settings import LocalSettings
from deploy.local.supervision import Supervisor

ASK_SECONDS = 2


def stop(settings: LocalSettings, *, drain_seconds: float = DRAIN_SECONDS) -> bool:
    """Stop the mesh; False when none was running. Calls still running after `drain_seconds` are cut."""
    supervisor = Supervisor(settings)
    if not supervisor.answers():
        return False
    admin = read_mesh_env(settings).get("LLMMESH_ENVOY_ADMIN_URL")
    if admin and drain_seconds:
        with suppress(OSError):
            _drain(admin, drain_seconds)
    supervisor.shut_down()
    settings.mesh_env.unlink(missing_ok=True)
    return True


def _drain(admin: str, seconds: float) -> None:
    """Close the edge and wait for the calls under way."""
    _ask(f"{admin}/healthcheck/fail", "POST")
    _ask(f"{admin}/drain_listeners?inboundonly", "POST")
    until = time.monotonic() + seconds
    while _running_calls(admin) and time.monotonic() < until:
        time.sleep(0.1)


def _running_calls(admin: str) -> int:
    stats = json.loads(_ask(f"{admin}/stats?format=json&filter=^http.edge.downstream_rq_active$", "GET"))
    return sum(stat.get("value", 0) for stat in stats["stats"])


def _ask(url: str, method: str) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=ASK_SECONDS) as answer:  # noqa: S310
        return bytes(answer.read())
