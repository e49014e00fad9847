"""Ends the engine's processes with the process that started them, however that one ended.

vLLM calls `end_with_parent` in each of its processes: it is registered as a plugin in pyproject.toml. Without it the
engine outlives a service that was killed, holding its memory and its cores.
"""

import multiprocessing
import os
import signal
import threading
from multiprocessing.process import BaseProcess


def end_with_parent() -> None:
    """Watch the parent from a thread; in the service itself, which has no such parent, do nothing."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=follow, args=(parent,), name="end-with-parent", daemon=True).start()


def follow(parent: BaseProcess) -> None:
    """Wait for the parent's end, then end at once: nobody is left to clean up for."""
    parent.join()
    os.kill(os.getpid(), signal.SIGKILL)
