"""Which of gRPC's two ways of reading sockets a room uses."""

from __future__ import annotations

import os
import subprocess
import sys

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
