"""Calls of a model that an answer waits for: who cannot wait has his own miss and nobody else's."""

from __future__ import annotations

import asyncio

import pytest

from meshkit.deadline import enter_deadline
from meshkit.dependency import Unavailable
from services.cache.modelcalls import ModelCalls


async def silence(seconds: float) -> str:
    await asyncio.Event().wait()
    return "never"


async def answer(seconds: float) -> str:
    return "made"


async def hurried(calls: ModelCalls) -> str:
    enter_deadline(0.01)
    return await calls.ask(silence)


async def test_a_request_that_cannot_wait_takes_the_model_from_no_other() -> None:
    calls = ModelCalls("embeddings", timeout_seconds=60, at_once=1)
    for _ in range(3):
        with pytest.raises(Unavailable):
            await asyncio.create_task(hurried(calls))
        assert await calls.ask(answer) == "made"


async def test_a_model_that_takes_longer_than_usual_is_away() -> None:
    calls = ModelCalls("embeddings", timeout_seconds=0.01, at_once=1)
    for call in (silence, answer):
        with pytest.raises(Unavailable):
            await calls.ask(call)
