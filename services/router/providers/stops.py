"""Texts that end an answer, kept for providers that know no such thing."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from llmmesh.chat.v1 import chat_pb2
from services.router.providers.provider import AnswerEvent, Ended, apart


async def until_stop(
    events: AsyncGenerator[AnswerEvent, None], stops: Sequence[str]
) -> AsyncGenerator[AnswerEvent, None]:
    """The answer up to the first of `stops`, which is not handed on; then the provider is hung up on.

    What may be the beginning of a stop is held back until more has come.
    """
    held = ""
    async with aclosing(events):
        async for together in events:
            for event in apart(together):
                if isinstance(event, Ended):
                    if held:
                        yield chat_pb2.Delta(text=held)
                    yield event
                    return
                if not stops or not event.text:
                    yield event
                    continue
                text, held, stopped = _cut(held + event.text, stops)
                shown = chat_pb2.Delta(text=text, reasoning=event.reasoning, tool_calls=event.tool_calls)
                if stopped:
                    yield Ended(chat_pb2.FINISH_REASON_STOP, None, shown)
                    return
                yield shown


def _cut(text: str, stops: Sequence[str]) -> tuple[str, str, bool]:
    """What may be shown of `text`, what is held back, and whether a stop was met."""
    found = [at for at in (text.find(stop) for stop in stops) if at >= 0]
    if found:
        return text[: min(found)], "", True
    held = max(_overlap(text, stop) for stop in stops)
    return text[: len(text) - held], text[len(text) - held :], False


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that `stop` begins with."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
