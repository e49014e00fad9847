"""What a mesh does that a script started in the background: there a shell has SIGINT ignored."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import psutil

from deploy.local.settings import LocalSettings

IN_THE_BACKGROUND = "trap '' INT; exec \"$0\" -m deploy.local run"


async def test_a_mesh_in_the_background_of_a_script_stops_when_it_is_told_to(tmp_path: Path) -> None:
    variables = {"LLMMESH_VAR": str(tmp_path), "LLMMESH_LOCAL_MODELS": "none", "LLMMESH_PORT": "0"}
    mesh = await asyncio.create_subprocess_exec(
        "sh", "-c", IN_THE_BACKGROUND, sys.executable, env=os.environ | variables, stdout=-3, stderr=-3
    )
    try:
        async with asyncio.timeout(60):
            supervisor = await started(LocalSettings.read(variables).run / "supervisord.pid")
            family = [supervisor, *supervisor.children(recursive=True)]
            mesh.send_signal(signal.SIGTERM)
            await mesh.wait()
    finally:
        if mesh.returncode is None:
            mesh.kill()
    assert not psutil.wait_procs(family, timeout=10)[1]


async def started(pid_file: Path) -> psutil.Process:
    """The supervisor, once it has written its name down."""
    while not (pid_file.exists() and pid_file.read_text().strip()):
        await asyncio.sleep(0.02)
    return psutil.Process(int(pid_file.read_text()))
