"""What is asked of a dependency that fails ends at once, until a retry is due."""

from __future__ import annotations

import asyncio

from meshkit.dependency import Dependency, Unavailable

AT_ONCE = 6


async def is_there(dependency: Dependency) -> bool:
    async def well() -> None: ...

    try:
        await dependency.ask(well, timeout_seconds=5)
    except Unavailable:
        return False
    return True


async def test_operations_that_fail_together_are_one_failure_after_which_a_retry_is_soon_due() -> None:
    dependency, together = Dependency("store"), asyncio.Barrier(AT_ONCE)

    async def stalls() -> None:
        await together.wait()
        raise OSError

    asked = (dependency.ask(stalls, timeout_seconds=5) for _ in range(AT_ONCE))
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(outcome, Unavailable) for outcome in outcomes)
    assert not await is_there(dependency)
    async with asyncio.timeout(1):  # a tenth of a second, not two
        while not await is_there(dependency):  # noqa: ASYNC110 - nothing tells when a retry is due
            await asyncio.sleep(0.01)
