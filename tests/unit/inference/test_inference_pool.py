import asyncio
import threading

import pytest

from meshkit.errors import RateLimited
from services.inference.pool import Pool


@pytest.fixture
def pool():
    pool = Pool("test", threads=1, max_callers=2)
    yield pool
    pool.close()


async def test_work_runs_in_a_thread(pool):
    assert await pool.run(threading.current_thread) is not threading.current_thread()


async def test_more_callers_than_allowed_are_refused(pool):
    with pool.admitted(), pool.admitted(), pytest.raises(RateLimited) as caught, pool.admitted():
        pass
    assert caught.value.retry_after_seconds == 1


async def test_a_caller_who_leaves_makes_room(pool):
    for _ in range(3):
        with pool.admitted():
            pass


async def test_work_cancelled_before_its_turn_never_runs(pool):
    release, ran = threading.Event(), threading.Event()
    first = asyncio.create_task(pool.run(release.wait, 5))
    second = asyncio.create_task(pool.run(ran.set))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    release.set()
    await first
    assert not ran.is_set()
