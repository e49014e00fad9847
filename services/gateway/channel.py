"""One kind of text on its way through the guard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import TypeAlias

from llmmesh.guard.v1 import guard_pb2
from services.gateway.peers.guard import NoVerdict
from services.gateway.stops import AnswerBlocked, AnswerRunaway

QUEUE_LENGTH = 64
"""Pieces waiting for the guard; a slow guard thus slows the provider."""

Watch: TypeAlias = Callable[
    [AsyncIterator[guard_pb2.WatchAnswerRequest]], AsyncGenerator[guard_pb2.WatchAnswerResponse, None]
]
"""The guard: text in, text that may be shown out, a verdict last."""
Sink: TypeAlias = Callable[[str], Awaitable[None]]


class Channel:
    """Text in by `put`, released text out into the sink.

    Without a last verdict nothing counts as judged: a guard that breaks, or is silent for `verdict_seconds` after all
    text was sent, is GuardUnavailable.
    """

    def __init__(
        self, watch: Watch, sink: Sink, verdict_seconds: float, opening: guard_pb2.WatchAnswerRequest | None = None
    ) -> None:
        """`opening` is what the guard has to know before the text, if anything."""
        self._watch = watch
        self._sink = sink
        self._verdict_seconds = verdict_seconds
        self._pieces: asyncio.Queue[guard_pb2.WatchAnswerRequest] = asyncio.Queue(QUEUE_LENGTH)
        if opening is not None:
            self._pieces.put_nowait(opening)
        self._held = ""
        self._closed = False
        self._opened = False
        self._patience: asyncio.Timeout | None = None

    async def put(self, text: str) -> None:
        """Send text to the guard; waits while the guard is behind."""
        if self._opened:
            await self._sink(text)
            return
        self._held += text
        await self._pieces.put(guard_pb2.WatchAnswerRequest(text=text))

    async def close(self) -> None:
        """Say that no more text follows."""
        if self._opened:
            return
        await self._pieces.put(guard_pb2.WatchAnswerRequest(last=True))
        self._closed = True
        if self._patience is not None:
            self._patience.reschedule(asyncio.get_running_loop().time() + self._verdict_seconds)

    async def open(self) -> None:
        """Let what is held, and all that follows, pass unwatched, in order."""
        while self._held:
            held, self._held = self._held, ""
            await self._sink(held)
        self._opened = True
        # Nobody reads these any more, and somebody may be waiting for room.
        while not self._pieces.empty():
            self._pieces.get_nowait()

    async def run(self) -> guard_pb2.Verdict:
        """Release text until the last verdict.

        Raises:
            AnswerBlocked: If the guard stopped the answer.
            AnswerRunaway: If the guard ended it, all that was said until then released.
            GuardUnavailable: If no verdict was reached.
        """
        async with aclosing(self._watch(self._sent())) as responses:
            while response := await self._next(responses):
                if response.text:
                    self._forget(response.text)
                    await self._sink(response.text)
                if response.HasField("verdict"):
                    return _passed(response)
        raise _no_verdict()

    def _forget(self, released: str) -> None:
        """Note what is no longer held; where the guard has changed the text nobody can tell, so all counts as gone."""
        self._held = self._held[len(released) :] if self._held.startswith(released) else ""

    async def _sent(self) -> AsyncGenerator[guard_pb2.WatchAnswerRequest, None]:
        while True:
            piece = await self._pieces.get()
            yield piece
            if piece.last:
                return

    async def _next(
        self, responses: AsyncGenerator[guard_pb2.WatchAnswerResponse, None]
    ) -> guard_pb2.WatchAnswerResponse | None:
        try:
            async with asyncio.timeout(self._verdict_seconds if self._closed else None) as self._patience:
                return await anext(responses, None)
        except TimeoutError as error:
            raise _no_verdict() from error
        finally:
            self._patience = None


def _passed(response: guard_pb2.WatchAnswerResponse) -> guard_pb2.Verdict:
    verdict = response.verdict
    if verdict.action == guard_pb2.ACTION_BLOCK:
        raise AnswerBlocked(verdict)
    if verdict.action not in (guard_pb2.ACTION_ALLOW, guard_pb2.ACTION_MASK):
        raise _no_verdict(verdict.detections)
    if response.runaway:
        raise AnswerRunaway(verdict)
    return verdict


def _no_verdict(detections: Sequence[guard_pb2.Detection] = ()) -> NoVerdict:
    error = NoVerdict("The answer cannot be checked right now: retry in a moment.", retry_after_seconds=2)
    error.detections = detections
    return error
