"""Sees to it that an answer has the form its caller asked for.

A caller who waits for the whole gets one that has it: a model whose answer has not is told what is wrong and asked once
more. A stream is out before it can be judged, so that a wrong one ends with an error.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from llmmesh.chat.v1 import chat_pb2
from llmmesh.router.v1 import router_pb2
from meshkit.errors import AnswerInvalid
from services.gateway.exchange import Event, Exchange, Finished
from services.gateway.generation import Generation
from services.gateway.measures import FORMED_ANSWERS
from services.gateway.output_format import OutputFormat
from services.gateway.spending import Spending

REPAIR = (
    "Your answer does not have the form that was asked for: {fault}. Answer again with the corrected JSON alone, "
    "without any explanation and without code fences."
)

Events = AsyncGenerator[Event, None]
Reserve = Callable[[chat_pb2.ChatPrompt], Awaitable[Spending]]
"""Holds the money for one more answer to a prompt."""


async def checked(events: Events, wanted: OutputFormat) -> Events:
    """The same events; AnswerInvalid in place of the last where the text does not have the form."""
    texts: list[str] = []
    async with aclosing(events):
        async for event in events:
            if isinstance(event, chat_pb2.Delta):
                texts.append(event.text)
            elif isinstance(event, Finished) and (fault := _fault(wanted, "".join(texts), event)):
                FORMED_ANSWERS.labels("streamed_wrong").inc()
                raise _invalid(fault)
            yield event


class Forming:
    """One whole answer, asked for at most twice."""

    def __init__(self, generation: Generation, exchange: Exchange, wanted: OutputFormat, reserve: Reserve) -> None:
        self._generation = generation
        self._exchange = exchange
        self._wanted = wanted
        self._reserve = reserve

    async def events(self, request: router_pb2.StreamGenerateChatRequest, spending: Spending) -> Events:
        """The events of the answer that has the form; it is billed for all that was asked.

        Raises:
            AnswerInvalid: If the second has it no more than the first.
        """
        events, fault = await self._attempt(request, spending)
        if fault is not None:
            events, fault = await self._repaired(request, events[-1], fault)
            FORMED_ANSWERS.labels("refused" if fault else "repaired").inc()
        if fault is not None:
            raise _invalid(fault)
        for event in events:
            yield event

    async def _attempt(
        self, request: router_pb2.StreamGenerateChatRequest, spending: Spending
    ) -> tuple[list[Event], str | None]:
        async with aclosing(self._generation.attempt(request, spending)) as attempt:
            events = [event async for event in attempt]
        text = "".join(event.text for event in events if isinstance(event, chat_pb2.Delta))
        return events, _fault(self._wanted, text, events[-1])

    async def _repaired(
        self, request: router_pb2.StreamGenerateChatRequest, first: Event, fault: str
    ) -> tuple[list[Event], str | None]:
        """A second answer, its use and cost those of both."""
        assert isinstance(first, Finished)
        seconds = self._exchange.provider_seconds
        request.constraints.ClearField("shadows")
        request.prompt.messages.extend(_reproach("".join(self._generation.said), self._generation.hidden(fault)))
        with await self._reserve(request.prompt) as spending:
            events, fault_left = await self._attempt(request, spending)
        second = events[-1]
        assert isinstance(second, Finished)
        self._exchange.provider_seconds += seconds
        return [*events[:-1], self._both(first, second)], fault_left

    def _both(self, first: Finished, second: Finished) -> Finished:
        usage = added(first.usage, second.usage)
        costs = (first.report.cost_micros, second.report.cost_micros)
        cost = None if None in costs else sum(each or 0 for each in costs)
        self._exchange.usage = usage
        return Finished(second.finish_reason, usage, self._exchange.report(cost, second.report.currency_code))


def added(one: chat_pb2.TokenUsage, other: chat_pb2.TokenUsage) -> chat_pb2.TokenUsage:
    """What two answers used together."""
    return chat_pb2.TokenUsage(
        input_tokens=one.input_tokens + other.input_tokens,
        cached_input_tokens=one.cached_input_tokens + other.cached_input_tokens,
        cache_write_tokens=one.cache_write_tokens + other.cache_write_tokens,
        output_tokens=one.output_tokens + other.output_tokens,
        reasoning_tokens=one.reasoning_tokens + other.reasoning_tokens,
        estimated=one.estimated or other.estimated,
    )


def _fault(wanted: OutputFormat, text: str, last: Event) -> str | None:
    """What is wrong with a text that its model ended by itself; one that was cut off says so by its ending."""
    assert isinstance(last, Finished)
    return wanted(text) if last.finish_reason == chat_pb2.FINISH_REASON_STOP else None


def _reproach(answer: str, fault: str) -> list[chat_pb2.ChatMessage]:
    said = [chat_pb2.ContentPart(text=answer)]
    asked = [chat_pb2.ContentPart(text=REPAIR.format(fault=fault))]
    return [
        chat_pb2.ChatMessage(role=chat_pb2.ROLE_ASSISTANT, content=said),
        chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content=asked),
    ]


def _invalid(fault: str) -> AnswerInvalid:
    return AnswerInvalid(f"The model's answer does not have the form that response_format asks for: {fault}.")
