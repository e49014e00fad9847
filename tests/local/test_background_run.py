"""What a mesh does that a script started in the background: there a shell has SIGINT ignored."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from deploy.local.settings import LocalSettings

IN_THE_BACKGROUND = "trap '' INT; exec \"$0\" -m deploy.local run"


@contextmanager
def running(folder: Path) -> Iterator[psutil.Process]:
    """The supervisor of a mesh that is starting below a folder; at the end it is told to stop."""
    variables = {"LLMMESH_VAR": str(folder), "LLMMESH_LOCAL_MODELS": "none", "LLMMESH_PORT": "0"}
    command = ["sh", "-c", IN_THE_BACKGROUND, sys.executable]
    with subprocess.Popen(command, env=os.environ | variables, stdout=subprocess.DEVNULL) as mesh:
        try:
            yield started(LocalSettings.read(variables).run / "supervisord.pid")
            mesh.terminate()
            mesh.wait(timeout=60)
        finally:
            mesh.kill()


def test_a_mesh_in_the_background_of_a_script_stops_when_it_is_told_to(tmp_path: Path) -> None:
    with running(tmp_path) as supervisor:
        family = [supervisor, *supervisor.children(recursive=True)]
    assert not psutil.wait_procs(family, timeout=10)[1]


def test_what_was_written_of_a_mesh_that_was_killed_is_gone_when_the_next_one_starts(tmp_path: Path) -> None:
    left = tmp_path / "run" / "mesh.env"
    left.parent.mkdir()
    left.write_text("export LLMMESH_ENVOY_ADMIN_URL=http://127.0.0.1:1\n")
    with running(tmp_path):
        assert not left.exists()


def started(pid_file: Path) -> psutil.Process:
    """The supervisor, once it has written its name down."""
    end = time.monotonic() + 60
    while not (pid_file.exists() and pid_file.read_text().strip()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return psutil.Process(int(pid_file.read_text()))
