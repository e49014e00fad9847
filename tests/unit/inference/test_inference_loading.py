import asyncio
import multiprocessing
import sys
import threading
import time

import pytest

from services.inference.config import InferenceConfig
from services.inference.engine import start_engine
from services.inference.loading import LoadFailed, beside_loop, one_line


async def test_the_loop_goes_on_while_something_loads():
    release = threading.Event()
    loading = asyncio.create_task(beside_loop(lambda _: release.wait(5) and "loaded"))
    await asyncio.sleep(0)
    assert not loading.done()
    release.set()
    assert await loading == "loaded"


async def test_a_failure_reaches_the_one_who_waits():
    def load(_):
        raise LoadFailed("no such model")

    with pytest.raises(LoadFailed, match="no such model"):
        await beside_loop(load)


async def test_giving_a_load_up_tells_it_so():
    begun, noticed = threading.Event(), threading.Event()

    def load(cancelled):
        begun.set()
        if cancelled.wait(5):
            noticed.set()

    loading = asyncio.create_task(beside_loop(load))
    await asyncio.to_thread(begun.wait, 5)
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    assert noticed.wait(5)


async def test_giving_a_load_up_kills_the_processes_it_waits_for():
    started = threading.Event()
    spawned = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))

    def load(_):
        spawned.start()
        started.set()
        spawned.join()

    loading = asyncio.create_task(beside_loop(load))
    await asyncio.to_thread(started.wait, 20)
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    assert not spawned.is_alive()


def test_an_engine_whose_libraries_cannot_be_imported_is_a_failed_load(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm.config", None)  # so Python says that there is no such module
    with pytest.raises(LoadFailed, match=r"vllm\.config"):
        start_engine("tiny", "var/models/tiny", InferenceConfig(), threading.Event())


def test_an_error_fits_on_one_line():
    assert one_line(ValueError("first\n  second")) == "first second"
    assert len(one_line(ValueError("x" * 1000))) == 300
    assert one_line(ValueError()) == "ValueError"
