"""Answers as events and events as answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from llmmesh.cache.v1 import cache_pb2
from llmmesh.chat.v1 import chat_pb2
from services.gateway.exchange import Event, Exchange, Finished, Route
from services.gateway.tee import joined


@dataclass(frozen=True, slots=True)
class WholeAnswer:
    """An answer that nobody waited for piece by piece."""

    route: Route
    answer: chat_pb2.Answer
    finished: Finished


def replayed(exchange: Exchange, hit: cache_pb2.CachedAnswer, currency_code: str) -> Iterator[Event]:
    """The events of a cached answer; it costs nothing and its usage is what the first asking used."""
    answer = hit.answer
    exchange.cached = hit
    exchange.provider, exchange.deployment = hit.provider, hit.deployment
    exchange.usage, exchange.finish_reason = answer.usage, answer.finish_reason
    yield exchange.route(free_in=currency_code)
    yield chat_pb2.Delta(text=answer.text, reasoning=answer.reasoning, tool_calls=_pieces(answer))
    yield Finished(answer.finish_reason, answer.usage, exchange.report(0, currency_code))


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


def _pieces(answer: chat_pb2.Answer) -> list[chat_pb2.ToolCallDelta]:
    return [
        chat_pb2.ToolCallDelta(index=index, id=call.id, name=call.name, arguments=call.arguments)
        for index, call in enumerate(answer.tool_calls)
    ]


def _whole(pieces: list[chat_pb2.ToolCallDelta]) -> list[chat_pb2.ToolCall]:
    return [chat_pb2.ToolCall(id=call.id, name=call.name, arguments=call.arguments) for call in joined(pieces)]
