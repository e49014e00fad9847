"""Supervisor's event listener: when a process dies, the children it left behind die too.

Run by path and without site-packages, so that it costs no memory: nothing is imported but the standard library.
Protocol: http://supervisord.org/events.html.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress


def pairs(line: str) -> dict[str, str]:
    """Read `key:value key:value`."""
    return dict(pair.split(":", 1) for pair in line.split())


def reap(process: int) -> None:
    """Kill what is left of a process group whose leader is gone."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process, signal.SIGKILL)


def main() -> None:
    """Answer events until the supervisor goes."""
    while True:
        sys.stdout.write("READY\n")
        sys.stdout.flush()
        header = sys.stdin.readline()
        if not header:
            return
        event = pairs(sys.stdin.read(int(pairs(header)["len"])))
        reap(int(event["pid"]))
        sys.stdout.write("RESULT 2\nOK")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
