"""How an answer reaches an HTTP client: headers first, then one object or server-sent events."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import TypeAlias

from google.api import httpbody_pb2

from llmmesh.chat.v1 import chat_pb2
from meshkit.failure import Failure
from meshkit.openai import OPENAI_ERROR
from meshkit.server import Context, Last
from services.gateway.exchange import Event, Finished, Route
from services.gateway.headers import closing_headers, opening_headers
from services.gateway.openai.chat_reply import ChatReply
from services.gateway.openai.short_reply import ShortReply
from services.gateway.replay import collected

JSON = "application/json"
EVENTS = "text/event-stream"

Reply: TypeAlias = ChatReply | ShortReply
Body: TypeAlias = httpbody_pb2.HttpBody | Last[httpbody_pb2.HttpBody]
Bodies: TypeAlias = AsyncGenerator[Body, None]


async def whole(events: AsyncIterator[Event], reply: Reply, context: Context) -> Bodies:
    """The answer as one object, once it is complete."""
    answer = await collected(events)
    await context.send_initial_metadata(closing_headers(answer.finished.report))
    yield Last(httpbody_pb2.HttpBody(content_type=JSON, data=reply.whole(answer)))


async def streamed(events: AsyncIterator[Event], reply: Reply, context: Context) -> Bodies:
    """The answer as server-sent events.

    Headers go out with the first piece, so that a failure before it is still a proper status. A failure after it is
    the last event, without an end mark: over HTTP/1.1 the caller could not see it otherwise.
    """
    begun = False
    try:
        async for body in _written(events, reply, context):
            yield body
            begun = True
    except Exception as error:
        if not begun:
            raise
        yield Last(_events(_error_event(error)))


async def _written(events: AsyncIterator[Event], reply: Reply, context: Context) -> Bodies:
    """The pieces of a stream; the first piece brings the opening with it, an answer in one piece also its end."""
    pending, whole = reply.opening(), False
    route: Route | None = None
    finished: Finished | None = None
    async for event in events:
        if isinstance(event, Route):
            route, whole = event, event.whole
            continue
        if route is not None:
            await context.send_initial_metadata(opening_headers(route))
            route = None
        if isinstance(event, chat_pb2.Delta):
            pending += reply.delta(event)
            if pending and not whole:
                yield _events(pending)
                pending = b""
        else:
            finished = event
    assert finished is not None
    yield Last(_events(pending + reply.closing(finished)))


def _events(data: bytes) -> httpbody_pb2.HttpBody:
    return httpbody_pb2.HttpBody(content_type=EVENTS, data=data)


def _error_event(error: Exception) -> bytes:
    failure = Failure.of(error, "CreateChatCompletion")
    (body,) = [value for name, value in failure.trailers if name == OPENAI_ERROR]
    return b"data: " + (body if isinstance(body, bytes) else body.encode()) + b"\n\n"
