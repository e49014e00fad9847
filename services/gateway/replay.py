"""Answers as events and events as answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from itertools import accumulate

from llmmesh.cache.v1 import cache_pb2
from llmmesh.chat.v1 import chat_pb2
from llmmesh.gateway.v1 import gateway_pb2
from services.gateway.exchange import Event, Exchange, Finished, Route
from services.gateway.flights import Live
from services.gateway.tee import joined


@dataclass(frozen=True, slots=True)
class WholeAnswer:
    """An answer that nobody waited for piece by piece."""

    route: Route
    answer: chat_pb2.Answer
    finished: Finished


async def replayed(
    exchange: Exchange, hit: cache_pb2.CachedAnswer, currency_code: str, pieces_per_second: float | None
) -> AsyncGenerator[Event, None]:
    """The events of a cached answer; it costs nothing and its usage is what the first asking used.

    Without a pace it is one piece; with one it comes in the pieces it first came in, at once when the pace is 0.
    """
    answer = hit.answer
    exchange.cached = hit
    exchange.provider, exchange.deployment = hit.provider, hit.deployment
    exchange.usage, exchange.finish_reason = answer.usage, answer.finish_reason
    exchange.cached_request_id = hit.request_id
    yield exchange.route(free_in=currency_code, whole=pieces_per_second is None)
    if pieces_per_second is None:
        whole = chat_pb2.Delta(text=answer.text, reasoning=answer.reasoning, tool_calls=_pieces(answer))
        exchange.sent(whole)
        yield whole
    else:
        for number, delta in enumerate(_first_pieces(hit)):
            if number and pieces_per_second:
                await asyncio.sleep(1 / pieces_per_second)
            exchange.sent(delta)
            yield delta
    yield Finished(answer.finish_reason, answer.usage, exchange.report(0, currency_code))


async def overheard(exchange: Exchange, live: Live, currency_code: str) -> AsyncGenerator[Event, None]:
    """The events of an answer that another caller is being given; it costs nothing, as one from the cache.

    Raises:
        Exception: What that caller is told, where the answer fails.
    """
    leader = live.leader
    exchange.cache_status, exchange.cached_request_id = gateway_pb2.CACHE_STATUS_EXACT, leader.caller.request_id
    try:
        async with aclosing(live.broadcast.listen()) as events:
            async for event in events:
                if isinstance(event, Route):
                    exchange.provider, exchange.deployment = event.provider, event.deployment
                    yield exchange.route(free_in=currency_code)
                elif isinstance(event, Finished):
                    exchange.overheard(leader)
                    yield Finished(event.finish_reason, event.usage, exchange.report(0, currency_code))
                else:
                    exchange.sent(event)
                    yield event
    finally:
        exchange.judged_as(leader)


async def collected(events: AsyncIterator[Event]) -> WholeAnswer:
    """Wait for an answer to be complete."""
    texts: list[str] = []
    reasoning: list[str] = []
    calls: list[chat_pb2.ToolCallDelta] = []
    route = finished = None
    async for event in events:
        if isinstance(event, chat_pb2.Delta):
            texts.append(event.text)
            reasoning.append(event.reasoning)
            calls.extend(event.tool_calls)
        elif isinstance(event, Route):
            route = event
        else:
            finished = event
    assert route is not None
    assert finished is not None
    answer = chat_pb2.Answer(
        text="".join(texts),
        reasoning="".join(reasoning),
        tool_calls=_whole(calls),
        finish_reason=finished.finish_reason,
        usage=finished.usage,
    )
    return WholeAnswer(route, answer, finished)


def _first_pieces(hit: cache_pb2.CachedAnswer) -> Iterator[chat_pb2.Delta]:
    """The answer as it first came; what is not visible text comes whole."""
    answer = hit.answer
    if answer.reasoning:
        yield chat_pb2.Delta(reasoning=answer.reasoning)
    begin = 0
    for end in accumulate(hit.piece_lengths):
        yield chat_pb2.Delta(text=answer.text[begin:end])
        begin = end
    if begin < len(answer.text) or answer.tool_calls:
        yield chat_pb2.Delta(text=answer.text[begin:], tool_calls=_pieces(answer))


def _pieces(answer: chat_pb2.Answer) -> list[chat_pb2.ToolCallDelta]:
    return [
        chat_pb2.ToolCallDelta(index=index, id=call.id, name=call.name, arguments=call.arguments)
        for index, call in enumerate(answer.tool_calls)
    ]


def _whole(pieces: list[chat_pb2.ToolCallDelta]) -> list[chat_pb2.ToolCall]:
    return [chat_pb2.ToolCall(id=call.id, name=call.name, arguments=call.arguments) for call in joined(pieces)]
