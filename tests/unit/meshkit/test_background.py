"""A lone failure, of a loop or of the block beside which it runs, is shown as itself."""

from __future__ import annotations

import asyncio

import pytest

from meshkit.background import in_background


async def fails(error: Exception) -> None:
    raise error


async def goes_on() -> None:
    await asyncio.Event().wait()


async def test_a_loop_that_fails_ends_the_block_with_its_own_error() -> None:
    with pytest.raises(ValueError, match="of the loop"):
        async with in_background(fails(ValueError("of the loop")), goes_on()):
            await goes_on()


async def test_an_error_of_the_block_keeps_its_cause_once_the_loops_have_ended() -> None:
    with pytest.raises(ValueError, match="of the block") as caught:
        async with in_background(goes_on()):
            raise ValueError("of the block") from KeyError("why")
    assert isinstance(caught.value.__cause__, KeyError)


async def test_failures_of_several_loops_leave_together() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with in_background(fails(ValueError()), fails(KeyError())):
            await goes_on()
    assert [type(each) for each in caught.value.exceptions] == [ValueError, KeyError]
