"""Which of gRPC's two ways of reading sockets a room uses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SERVICES = Path(__file__).parents[3] / "services"
SHOW = "import meshkit.run, grpc, os; print(os.environ['GRPC_EXPERIMENTS'])"


def _started(**environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name != "GRPC_EXPERIMENTS"}
    command = [sys.executable, "-c", SHOW]
    return subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=True, timeout=60)


def test_a_room_takes_grpcs_older_io_which_this_grpc_still_knows() -> None:
    process = _started()
    assert process.stdout.strip() == "-event_engine_client,-event_engine_listener"
    assert "Unknown experiment" not in process.stderr


def test_an_operator_can_choose_otherwise() -> None:
    process = _started(GRPC_EXPERIMENTS="event_engine_client")
    assert process.stdout.strip() == "event_engine_client"


@pytest.mark.parametrize("start", sorted(SERVICES.glob("*/__main__.py")), ids=lambda path: path.parent.name)
def test_every_room_imports_the_chassis_before_anything_that_may_import_grpc(start: Path) -> None:
    first = next(line for line in start.read_text().splitlines() if line.startswith(("from ", "import ")))
    assert first.startswith("from meshkit.")
