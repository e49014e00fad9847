"""What the supervisor promises: what dies comes back, what is stopped leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from deploy.local.programs import Program
from deploy.local.session import follow
from deploy.local.settings import LocalSettings
from deploy.local.supervision import Supervisor, start_supervisor

PARENT = """
    import pathlib, subprocess, sys, signal
    child = subprocess.Popen(["sleep", "300"])
    pathlib.Path(sys.argv[1]).write_text(str(child.pid))
    signal.pause()
"""


class Family:
    """A supervised process with a child of its own."""

    def __init__(self, folder: Path) -> None:
        settings = LocalSettings.read({"LLMMESH_VAR": str(folder)})
        for path in (settings.run, settings.log):
            path.mkdir()
        self._child_file = folder / "child"
        script = folder / "parent.py"
        script.write_text(textwrap.dedent(PARENT))
        program = Program("parent", "rooms", [sys.executable, "-I", "-S", str(script), str(self._child_file)])
        self.supervisor: Supervisor = start_supervisor(settings, [program], {}, with_us=True)
        self.pid_file = settings.run / "supervisord.pid"

    @property
    def parent(self) -> int:
        """The process; 0 while it is down."""
        return self.supervisor.processes()["parent"].pid

    @property
    def child(self) -> int:
        """Its child; 0 before there is one."""
        return int(self._child_file.read_text() or 0) if self._child_file.exists() else 0


@pytest.fixture
async def family(tmp_path: Path) -> AsyncIterator[Family]:
    """A running parent with a running child."""
    family = Family(tmp_path)
    family.supervisor.start("parent")
    await eventually(lambda: family.child)
    yield family
    if family.supervisor.answers():
        family.supervisor.shut_down()
    family.supervisor.process.wait(5)


async def test_a_killed_process_comes_back_without_its_old_child(family: Family) -> None:
    parent, child = family.parent, family.child
    family.supervisor.kill("parent")
    await eventually(lambda: family.parent not in (0, parent))
    await eventually(lambda: not running(child))


async def test_a_stopped_process_stays_down_and_takes_its_child_along(family: Family) -> None:
    child = family.child
    family.supervisor.stop("parent")
    assert family.supervisor.processes()["parent"].state == "STOPPED"
    await eventually(lambda: not running(child))


async def test_nothing_outlives_a_killed_supervisor(family: Family) -> None:
    parent, child = family.parent, family.child
    os.kill(int(family.pid_file.read_text()), signal.SIGKILL)
    await eventually(lambda: not running(parent))
    await eventually(lambda: not running(child))


async def test_shutting_down_ends_everything(family: Family) -> None:
    parent, child = family.parent, family.child
    family.supervisor.shut_down()
    assert not family.supervisor.answers()
    assert not running(parent)
    await eventually(lambda: not running(child))


async def test_whoever_follows_a_mesh_that_another_stops_gets_no_error(family: Family) -> None:
    following = asyncio.create_task(asyncio.to_thread(follow, family.supervisor))
    await asyncio.to_thread(family.supervisor.shut_down)
    await asyncio.wait_for(following, 15)


def running(process: int) -> bool:
    """Whether a process exists and is more than a name waiting to be collected."""
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def eventually(look: Callable[[], object]) -> None:
    """Return once `look` gives something true."""
    async with asyncio.timeout(15):
        while True:
            if look():
                return
            await asyncio.sleep(0.02)
