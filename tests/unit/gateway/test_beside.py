"""Work that lives as long as a block of code."""

from __future__ import annotations

import asyncio

import pytest

from services.gateway.beside import running_beside


async def test_what_still_runs_ends_with_the_block() -> None:
    async with running_beside(asyncio.Event().wait()) as work:
        pass
    assert work.cancelled()


async def test_a_failure_is_for_who_asks_for_it() -> None:
    async def broken() -> None:
        raise ValueError("broken")

    async with running_beside(broken()) as work:
        await asyncio.wait([work])
    with pytest.raises(ValueError, match="broken"):
        await work


async def test_a_caller_who_leaves_when_the_work_is_done_loses_nothing_at_the_end_of_the_block() -> None:
    kept: list[str] = []

    async def caller() -> None:
        async with running_beside(asyncio.sleep(0, "money")) as work:
            got = await work
            leaving.cancel()
        kept.append(got)
        await asyncio.sleep(0)

    leaving = asyncio.create_task(caller())
    await asyncio.wait([leaving])
    assert (kept, leaving.cancelled()) == (["money"], True)
