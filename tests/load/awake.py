"""Keeps the processors from sleeping while latency is measured.

A virtual processor that has halted is woken by its host, which here takes 0.05 to 1 ms, several times per hop: at one
request at a time that, not the mesh, is what a clock sees. The spinners run at SCHED_IDLE, so only when nothing else
would; it is what `idle=poll` does on a machine of one's own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

SPIN = "import os\nos.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))\nwhile True: pass"


@contextmanager
def awake() -> Iterator[None]:
    """Spin on every processor for the block."""
    spinners = [subprocess.Popen([sys.executable, "-I", "-S", "-c", SPIN]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()
