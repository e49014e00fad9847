"""What a mesh does that a script started in the background: there a shell has SIGINT ignored."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

from deploy.local.settings import LocalSettings

IN_THE_BACKGROUND = "trap '' INT; exec \"$0\" -m deploy.local run"


def test_a_mesh_in_the_background_of_a_script_stops_when_it_is_told_to(tmp_path: Path) -> None:
    variables = {"LLMMESH_VAR": str(tmp_path), "LLMMESH_LOCAL_MODELS": "none", "LLMMESH_PORT": "0"}
    command = ["sh", "-c", IN_THE_BACKGROUND, sys.executable]
    with subprocess.Popen(command, env=os.environ | variables, stdout=subprocess.DEVNULL) as mesh:
        try:
            supervisor = started(LocalSettings.read(variables).run / "supervisord.pid")
            family = [supervisor, *supervisor.children(recursive=True)]
            mesh.terminate()
            mesh.wait(timeout=60)
        finally:
            mesh.kill()
    assert not psutil.wait_procs(family, timeout=10)[1]


def started(pid_file: Path) -> psutil.Process:
    """The supervisor, once it has written its name down."""
    end = time.monotonic() + 60
    while not (pid_file.exists() and pid_file.read_text().strip()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return psutil.Process(int(pid_file.read_text()))
