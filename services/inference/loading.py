"""Long blocking work, such as loading a model, beside the event loop."""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")

STOP_SECONDS = 3.0
"""How long a cancelled load may take to notice."""


class LoadFailed(Exception):
    """A model could not be loaded; the message says why, in one line."""


class LoadCancelled(Exception):
    """The load was given up; raised by loads that look at their flag."""


async def beside_loop(load: Callable[[threading.Event], T]) -> T:
    """Call `load` in a thread of its own and wait for it.

    Cancelled, it sets the flag that `load` was given and kills the processes that `load` waits for. The thread is a
    daemon: one that is deep in an import does not hold up the end of the process.
    """
    loop = asyncio.get_running_loop()
    loaded: asyncio.Future[T] = loop.create_future()
    cancelled = threading.Event()

    def run() -> None:
        try:
            deliver(loop, loaded.set_result, load(cancelled))
        except BaseException as error:  # noqa: BLE001 - whatever it is, the one who waits must hear of it
            deliver(loop, loaded.set_exception, error if isinstance(error, Exception) else LoadFailed(repr(error)))

    thread = threading.Thread(target=run, name="load", daemon=True)
    thread.start()
    try:
        return await loaded
    except asyncio.CancelledError:
        cancelled.set()
        await asyncio.to_thread(end_processes, thread)
        raise


def deliver(loop: asyncio.AbstractEventLoop, put: Callable[[T], None], outcome: T) -> None:
    """Put the outcome into the future, unless nobody waits any more."""

    def put_if_wanted() -> None:
        with suppress(asyncio.InvalidStateError):
            put(outcome)

    with suppress(RuntimeError):  # the loop has closed
        loop.call_soon_threadsafe(put_if_wanted)


def end_processes(thread: threading.Thread) -> None:
    """Kill this process's children until the thread that waits for them has ended."""
    deadline = time.monotonic() + STOP_SECONDS
    while thread.is_alive() and time.monotonic() < deadline:
        for process in multiprocessing.active_children():
            process.kill()
        thread.join(0.1)


def one_line(error: Exception, longest: int = 300) -> str:
    """The error's text on one line, cut to `longest` characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= longest else text[: longest - 1] + "…"
