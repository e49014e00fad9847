"""The router as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run(routes: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LLMMESH_ROUTER_ROUTES": str(routes)}
    return subprocess.run(
        [sys.executable, "-m", "services.router"], env=environment, capture_output=True, text=True, timeout=30
    )


def test_every_mistake_of_the_routes_is_told_at_start(tmp_path):
    routes = tmp_path / "routes.yaml"
    routes.write_text("deployments: [{adapter: local, name: a}, {adapter: openai, name: b, base_url: x}]")
    ended = run(routes)
    assert ended.returncode == 78
    assert "LLMMESH_ROUTER_ROUTES" in ended.stderr
    assert "deployments[0].context_tokens: Field required" in ended.stderr
    assert "deployments[1].base_url: must be an http or https URL" in ended.stderr
