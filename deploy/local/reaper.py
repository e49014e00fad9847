"""Supervisor's event listener: when a process dies, the children it left behind die too.

Supervisor makes every process it starts the leader of a group, all in its own session: a group in this session whose
leader is gone is an orphan. Run by path and without site-packages, so that it costs little memory.
Protocol: http://supervisord.org/events.html.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

LAST_SWEEPS_SECONDS = 60.0
SWEEP_SECONDS = 0.2


def members(session: int) -> Iterator[tuple[int, int]]:
    """Process and group of everything alive in a session."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            # pid (name) state parent group session ...; a name may hold anything, even brackets.
            state, _, group, owner = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(owner) == session and state != "Z":
                yield int(folder.name), int(group)


def sweep() -> bool:
    """Kill every group without a leader; True while anything but ourselves is alive."""
    alive = dict(members(os.getsid(0)))
    for group in set(alive.values()) - set(alive):
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
    return set(alive) != {os.getpid()}


def listen() -> None:
    """Sweep at every event until the supervisor is gone."""
    while True:
        sys.stdout.write("READY\n")
        sys.stdout.flush()
        header = sys.stdin.readline()
        if not header:
            return
        sys.stdin.read(int(header.rpartition("len:")[2]))
        sweep()
        sys.stdout.write("RESULT 2\nOK")
        sys.stdout.flush()


def main() -> None:
    """Listen; after the supervisor's death stay until the last of its processes is gone."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        listen()
        until = time.monotonic() + LAST_SWEEPS_SECONDS
        while sweep() and time.monotonic() < until:
            time.sleep(SWEEP_SECONDS)
    finally:
        sweep()


if __name__ == "__main__":
    main()
