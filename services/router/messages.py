"""The messages of an answer: each costs every hop some 100 µs of CPU, so what is ready together goes together."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing

from llmmesh.chat.v1 import chat_pb2
from llmmesh.router.v1 import router_pb2
from meshkit.server import Last
from services.router.deltas import append, says_something
from services.router.experiments.treatment import Use
from services.router.routing import Chosen, Finished, RouteEvent

WHOLE_SECONDS = 0.1
"""How long pieces of an answer that is read at its end may wait for company: so much later a guard may stop it."""
USES = {use: router_pb2.VariantUse.Value(f"VARIANT_USE_{use.name}") for use in Use}

Message = router_pb2.StreamGenerateChatResponse


async def messages(
    events: AsyncGenerator[RouteEvent, None], *, whole: bool
) -> AsyncGenerator[Message | Last[Message], None]:
    """An answer as messages, the route with the first piece; a `whole` one in few. Closing closes `events`."""
    packing = Packing(whole)
    async with aclosing(events):
        try:
            async for event in events:
                if isinstance(event, Finished):
                    yield Last(packing.end(event))
                    return
                for message in packing.take(event):
                    yield message
        except Exception:
            for message in packing.rest():
                yield message
            raise


class Packing:
    """Puts events together."""

    def __init__(self, whole: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._whole = whole
        self._clock = clock
        self._route: router_pb2.RouteChosen | None = None
        self._held = chat_pb2.Delta()
        self._sent_at = 0.0

    def take(self, event: Chosen | chat_pb2.Delta) -> Iterator[Message]:
        """Take one event in; out comes what is to be sent."""
        if isinstance(event, Chosen):
            self._route = chosen_route(event)
        else:
            yield from self._piece(event)

    def rest(self) -> Iterator[Message]:
        """What is held of an answer that has no end."""
        if self._route is not None:
            yield Message(route=self._route)
        if says_something(self._held):
            yield Message(delta=self._held)

    def _piece(self, delta: chat_pb2.Delta) -> Iterator[Message]:
        now = self._clock()
        if self._route is not None:
            route, self._route = self._route, None
            route.first.CopyFrom(delta)
            yield Message(route=route)
        elif not self._whole:
            yield Message(delta=delta)
        else:
            append(self._held, delta)
            if now - self._sent_at < WHOLE_SECONDS:
                return
            held, self._held = self._held, chat_pb2.Delta()
            yield Message(delta=held)
        self._sent_at = now

    def end(self, finished: Finished) -> Message:
        """The end, with all that was not sent before it."""
        if finished.last is not None:
            append(self._held, finished.last)
        end = router_pb2.Finished(
            finish_reason=finished.finish_reason,
            usage=finished.usage,
            last=self._held if says_something(self._held) else None,
            route=self._route,
        )
        end.provider_time.FromMicroseconds(int(finished.provider_seconds * 1_000_000))
        return Message(finished=end)


def chosen_route(chosen: Chosen) -> router_pb2.RouteChosen:
    """Who answers, and who did not."""
    return router_pb2.RouteChosen(
        deployment=chosen.deployment.name,
        provider=chosen.deployment.provider,
        provider_model=chosen.deployment.model,
        failed_attempts=[
            router_pb2.FailedAttempt(
                deployment=each.deployment.name,
                provider=each.deployment.provider,
                reason=each.failure.kind.reason,
                usage=chosen.outpaced_usage if each.outpaced else None,
            )
            for each in chosen.failed
        ],
        variant_use=USES[chosen.use] if chosen.use else router_pb2.VARIANT_USE_UNSPECIFIED,
        routes_version=chosen.routes_version,
    )
