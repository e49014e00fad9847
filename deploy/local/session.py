"""From a command to a running mesh, in the background or in the foreground."""

from __future__ import annotations

import asyncio
import os
import sys
import time

from rich.console import Console

from deploy.local.launch import Launch, StartFailed, parts
from deploy.local.ports import PortTaken
from deploy.local.progress import Progress
from deploy.local.report import welcome, write_mesh_env
from deploy.local.settings import LocalSettings
from deploy.local.shutdown import stop
from deploy.local.supervision import GONE, ProcessState, Supervisor

FOLLOW_SECONDS = 0.5


async def up(settings: LocalSettings, *, wait_for_model: bool, with_us: bool = False) -> int:
    """Start the mesh unless it runs; 0 once it is ready. When it cannot be, everything is stopped again."""
    console = Console()
    if Supervisor(settings).answers():
        console.print("The mesh is up already: `make down` stops it.", highlight=False)
        return 0
    started = time.monotonic()
    try:
        with Progress(parts(settings), console) as progress:
            await _launch(settings, progress, wait_for_model=wait_for_model, with_us=with_us)
    except PortTaken as taken:
        return _say_error(str(taken))
    except StartFailed as failure:
        await asyncio.to_thread(stop, settings, drain_seconds=0)
        return _say_error(f"{failure}\n{failure.tail()}")
    except BaseException:
        await asyncio.shield(asyncio.to_thread(stop, settings, drain_seconds=0))
        raise
    seconds = time.monotonic() - started
    console.print(f"Ready in {seconds:.1f} s. Settings for scripts: {settings.mesh_env}", highlight=False)
    return 0


def run(settings: LocalSettings) -> int:
    """Start the mesh, say how to use it, and follow it until Ctrl-C; nothing is left running."""
    if Supervisor(settings).answers():
        return _say_error("The mesh is up already: `make down` stops it.")
    try:
        failed = asyncio.run(up(settings, wait_for_model=True, with_us=True))
        if failed:
            return failed
        sys.stdout.write(welcome(settings))
        sys.stdout.write("\nCtrl-C stops everything.\n")
        sys.stdout.flush()
        follow(Supervisor(settings))
    except KeyboardInterrupt:
        sys.stdout.write("\nstopping ...\n")
        sys.stdout.flush()
    stop(settings)
    return 0


async def _launch(settings: LocalSettings, progress: Progress, *, wait_for_model: bool, with_us: bool) -> None:
    launch = Launch(settings, progress)
    launch.begin(os.environ, with_us=with_us)
    await launch.all_but_the_model()
    write_mesh_env(settings, launch)
    if wait_for_model:
        await launch.model()


def follow(supervisor: Supervisor) -> None:
    """Say what dies and what comes back, until interrupted or until the supervisor is gone."""
    before: dict[str, ProcessState] = {}
    while True:
        try:
            now = supervisor.processes()
        except GONE:
            return
        for name, process in now.items():
            _say_change(before.get(name, process), process)
        before = now
        time.sleep(FOLLOW_SECONDS)


def _say_change(before: ProcessState, now: ProcessState) -> None:
    if now.pid == before.pid:
        return
    text = f"{now.name} is back, process {now.pid}" if now.pid else f"{now.name} went down ({now.reason})"
    sys.stdout.write(f"{text}; log: {now.log}\n")
    sys.stdout.flush()


def _say_error(text: str) -> int:
    sys.stderr.write(f"{text}\n")
    return 1
