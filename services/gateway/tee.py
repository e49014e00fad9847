"""Passes an answer through the guard while it is spoken: nothing the guard has not released reaches the caller."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Literal, TypeAlias

from llmmesh.chat.v1 import chat_pb2
from llmmesh.guard.v1 import guard_pb2
from llmmesh.router.v1 import router_pb2
from meshkit.errors import GuardUnavailable, ProviderStreamBroken
from services.gateway.beside import running_beside
from services.gateway.channel import Channel, Sink, Watch
from services.gateway.peers.guard import NoVerdict
from services.gateway.stops import AnswerBlocked

QUEUE_LENGTH = 64
"""Released pieces waiting for the caller; a slow caller thus slows the provider."""
SEPARATOR = "\x1e"
"""Stands between the parts of tool calls; JSON never holds it bare."""

Kind: TypeAlias = Literal["text", "reasoning"]
Steps: TypeAlias = AsyncGenerator[router_pb2.StreamGenerateChatResponse, None]
Piece: TypeAlias = router_pb2.RouteChosen | chat_pb2.Delta | router_pb2.Finished


class Tee:
    """One answer on its way through the guard; who answers passes as it is.

    Visible text and reasoning each have a watch of their own, so that both stay streams. The pieces of tool calls are
    held until the answer is complete and then watched together: half a call is of no use to anyone. With `fail_open`,
    text passes unwatched once the guard is away, and `unguarded` says so.
    """

    def __init__(
        self,
        watch: Watch,
        *,
        fail_open: bool,
        verdict_seconds: float,
        opening: guard_pb2.WatchAnswerRequest | None = None,
        json_text: bool = False,
    ) -> None:
        """`opening` is what the guard has to know before the answer, if anything; `json_text` when that is JSON."""
        self.verdicts: list[guard_pb2.Verdict] = []
        self.failures: list[guard_pb2.Detection] = []
        """What the guard named when it could not judge."""
        self.unguarded = False
        self._watch = watch
        self._fail_open = fail_open
        self._verdict_seconds = verdict_seconds
        self._opening = opening
        self._json_text = json_text
        self._released: asyncio.Queue[Piece | Exception] = asyncio.Queue(QUEUE_LENGTH)
        self._channels: dict[Kind, Channel] = {}
        self._tool_calls: list[chat_pb2.ToolCallDelta] = []

    async def through(self, steps: Steps) -> AsyncGenerator[Piece, None]:
        """Yield what may be shown of `steps`, the router's last word last.

        A block, a failure and closing this generator all close `steps` at once.

        Raises:
            AnswerStopped: If the guard ended the answer; everything yielded before had passed.
            GuardUnavailable: If the guard failed and the tenant's policy lets nothing pass unwatched.
            ProviderStreamBroken: If `steps` ended without a last word.
        """
        async with running_beside(self._relay(steps)):
            while True:
                item = await self._released.get()
                if isinstance(item, Exception):
                    raise item
                yield item
                if isinstance(item, router_pb2.Finished):
                    return

    async def _relay(self, steps: Steps) -> None:
        try:
            finished = await self._watched(steps)
            await self._release_tool_calls()
        except* Exception as group:  # noqa: BLE001 - raised again where the pieces are read
            await self._released.put(_first(group))
        else:
            await self._released.put(finished)

    async def _watched(self, steps: Steps) -> router_pb2.Finished:
        """Feed the guard until the router's last word; returns it when everything was released."""
        async with aclosing(steps), asyncio.TaskGroup() as readers:
            # Nearly every answer has text: its watch opens while the provider thinks.
            self._channel("text", readers)
            async for step in steps:
                if step.HasField("finished"):
                    break
                if step.HasField("route"):
                    await self._released.put(step.route)
                else:
                    await self._feed(step.delta, readers)
            else:
                raise ProviderStreamBroken("The answer ended before it was complete: ask again.")
            for channel in self._channels.values():
                await channel.close()
        return step.finished

    async def _feed(self, delta: chat_pb2.Delta, readers: asyncio.TaskGroup) -> None:
        self._tool_calls.extend(delta.tool_calls)
        if delta.reasoning:
            await self._channel("reasoning", readers).put(delta.reasoning)
        if delta.text:
            await self._channel("text", readers).put(delta.text)

    def _channel(self, kind: Kind, readers: asyncio.TaskGroup) -> Channel:
        channel = self._channels.get(kind)
        if channel is None:
            channel = self._channels[kind] = self._opened(
                self._sink(kind), json_text=self._json_text and kind == "text"
            )
            readers.create_task(self._read(channel))
        return channel

    def _opened(self, sink: Sink, *, json_text: bool, whole: bool = False) -> Channel:
        opening = guard_pb2.WatchAnswerRequest(json=json_text, whole=whole)
        if self._opening is not None:
            opening.MergeFrom(self._opening)
        return Channel(self._watch, sink, self._verdict_seconds, opening if opening.ByteSize() else None)

    def _sink(self, kind: Kind) -> Sink:
        async def release(text: str) -> None:
            delta = chat_pb2.Delta(text=text) if kind == "text" else chat_pb2.Delta(reasoning=text)
            await self._released.put(delta)

        return release

    async def _read(self, channel: Channel) -> None:
        try:
            self.verdicts.append(await channel.run())
        except GuardUnavailable as error:
            self.failures += error.detections if isinstance(error, NoVerdict) else ()
            if not self._fail_open:
                raise
            self.unguarded = True
            await channel.open()

    async def _release_tool_calls(self) -> None:
        if not self._tool_calls:
            return
        calls = joined(self._tool_calls)
        released: list[str] = []

        async def release(text: str) -> None:
            released.append(text)

        channel = self._opened(release, json_text=True, whole=True)
        await channel.put(SEPARATOR.join(part for call in calls for part in (call.name, call.arguments)))
        await channel.close()
        await self._read(channel)
        whole = _rebuilt(calls, "".join(released))
        if whole is None:
            raise AnswerBlocked(self.verdicts[-1])
        await self._released.put(chat_pb2.Delta(tool_calls=whole))


def joined(pieces: Sequence[chat_pb2.ToolCallDelta]) -> list[chat_pb2.ToolCallDelta]:
    """The whole calls that streamed pieces make, by index."""
    calls: dict[int, chat_pb2.ToolCallDelta] = {}
    for piece in pieces:
        call = calls.setdefault(piece.index, chat_pb2.ToolCallDelta(index=piece.index))
        call.id = call.id or piece.id
        call.name = call.name or piece.name
        call.arguments += piece.arguments
    return [calls[index] for index in sorted(calls)]


async def unwatched(steps: Steps) -> AsyncGenerator[Piece, None]:
    """The same pieces without a guard, for a tenant whose policy says so while the guard is away.

    Closing this generator closes `steps` at once.
    """
    async with aclosing(steps):
        async for step in steps:
            yield _piece(step)
            if step.HasField("finished"):
                return
    raise ProviderStreamBroken("The answer ended before it was complete: ask again.")


def _piece(step: router_pb2.StreamGenerateChatResponse) -> Piece:
    if step.HasField("route"):
        return step.route
    return step.finished if step.HasField("finished") else step.delta


def _rebuilt(calls: Sequence[chat_pb2.ToolCallDelta], released: str) -> list[chat_pb2.ToolCallDelta] | None:
    """The calls with the released text in place of the model's; None when it no longer falls into their parts."""
    parts = released.split(SEPARATOR)
    if len(parts) != 2 * len(calls):
        return None
    named = zip(calls, parts[::2], parts[1::2], strict=True)
    return [
        chat_pb2.ToolCallDelta(index=call.index, id=call.id, name=name, arguments=arguments)
        for call, name, arguments in named
    ]


def _first(error: BaseException) -> Exception:
    """The failure that came first: the cause, of which the others are consequences."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, Exception)
    return error
