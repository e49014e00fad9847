"""The money of one answer: held before the call, settled exactly once after it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self

from llmmesh.billing.v1 import billing_pb2
from llmmesh.chat.v1 import chat_pb2
from llmmesh.router.v1 import router_pb2
from meshkit.errors import BillingUnavailable
from meshkit.usage import all_output_tokens
from services.gateway.exchange import Exchange, FinishReason
from services.gateway.peers.billing import BillingPeer, Settlement
from services.gateway.stops import CostReached
from services.gateway.tokens import estimated_tokens

OVERRUN_FACTOR = 1.5
OVERRUN_TOKENS = 32
"""Our count of an answer may lie so far above its provider's before it is held against the provider."""


class Spending:
    """A reservation until its settlement.

    Leaving the block without `settle` settles in the background: an answer that nobody began is let go, one that was
    begun is billed by the tokens counted here, marked as estimated.
    """

    def __init__(
        self,
        exchange: Exchange,
        asked: billing_pb2.CreateReservationRequest,
        reservation: billing_pb2.Reservation,
        prompt_tokens: Callable[[], int],
        billing: BillingPeer,
        later: Callable[[Settlement], bool],
    ) -> None:
        self.currency_code = reservation.currency_code
        self._exchange = exchange
        self._asked = asked
        self._reservation = reservation
        self._reservation_id = reservation.id
        self._prompt_tokens = prompt_tokens
        self._billing = billing
        self._later = later
        self._begun = False
        self._settling: asyncio.Task[int | None] | None = None
        self._output: list[str] = []
        self._reasoning: list[str] = []
        self._characters = 0
        self._covered_tokens: float = reservation.max_output_tokens or asked.max_output_tokens

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._settling is not None:
            return
        usage = self.estimate() if self._begun else None
        self._later(self._settlement(usage, self._exchange.finish_reason))

    def narrow(
        self, constraints: router_pb2.RouteConstraints, options: chat_pb2.GenerationOptions | None = None
    ) -> None:
        """Hold the router to what is paid for, where the request may cost no more."""
        if self._reservation.deployments:
            constraints.deployments[:] = self._reservation.deployments
        if options is not None and self._reservation.max_output_tokens:
            options.max_output_tokens = self._reservation.max_output_tokens

    def begin(self, route: router_pb2.RouteChosen) -> None:
        """Note who answers: from now on something is owed; to those who were outpaced it is owed already."""
        self._begun = True
        self._exchange.routed(route)
        outpaced = (attempt for attempt in route.failed_attempts if attempt.HasField("usage"))
        for number, attempt in enumerate(outpaced, 1):
            commit = billing_pb2.CommitReservationRequest(
                reservation_id=self._reservation_id,
                deployment=attempt.deployment,
                provider=attempt.provider,
                usage=attempt.usage,
                part=f"hedge-{number}",
            )
            self._later(Settlement(self._exchange.caller, self._reservation_id, commit))

    def count(self, delta: chat_pb2.Delta) -> None:
        """Note what came from the provider, shown to the caller or not."""
        if delta.text:
            self._output.append(delta.text)
        if delta.reasoning:
            self._reasoning.append(delta.reasoning)
        for call in delta.tool_calls:
            self._output.append(call.name + call.arguments)
            self._characters += len(call.name) + len(call.arguments)
        self._characters += len(delta.text) + len(delta.reasoning)

    async def keep_covered(self) -> None:
        """Hold more once the answer has outgrown its reservation, as when a provider ignores the limit it was given.

        Raises BillingUnavailable, or CostReached where it may cost no more; BUDGET_EXCEEDED passes as billing said it.
        Each ends the answer.
        """
        limit = self._covered_tokens * OVERRUN_FACTOR + OVERRUN_TOKENS
        # No script makes more than a token of two characters by our count: most answers need not be counted at all.
        if self._characters / 2 <= limit:
            return
        counted = all_output_tokens(self.estimate())
        if counted <= limit:
            return
        request = billing_pb2.ExtendReservationRequest(
            reservation_id=self._reservation_id,
            deployments=self._reservation.deployments or self._asked.deployments,
            input_tokens=self._asked.input_tokens,
            max_output_tokens=2 * counted,
        )
        extended = await self._billing.extend(request)
        self._covered_tokens = extended.max_output_tokens or 2 * counted
        if self._covered_tokens <= counted:
            raise CostReached

    def estimate(self) -> chat_pb2.TokenUsage:
        """What was used so far, counted by us."""
        return chat_pb2.TokenUsage(
            input_tokens=self._prompt_tokens(),
            output_tokens=estimated_tokens("".join(self._output)),
            reasoning_tokens=estimated_tokens("".join(self._reasoning)),
            estimated=True,
        )

    def settle(self, usage: chat_pb2.TokenUsage, finish_reason: FinishReason) -> None:
        """Begin to settle with what was used; the first word counts. It goes on whatever becomes of the answer."""
        if self._settling is None:
            if finish_reason == chat_pb2.FINISH_REASON_LENGTH and self._reservation.max_output_tokens:
                self._exchange.stopped_for = self._exchange.stopped_for or CostReached.why
            self._settling = asyncio.create_task(self._settle(self._settlement(usage, finish_reason)))
            self._settling.add_done_callback(_looked_at)

    async def cost_micros(self) -> int | None:
        """What was settled, in micro-units.

        None when billing is away: the settlement then goes on in the background. A cancel while waiting does the same.
        """
        assert self._settling is not None
        return await asyncio.shield(self._settling)

    async def _settle(self, settlement: Settlement) -> int | None:
        try:
            response = await self._billing.settle(settlement)
        except BillingUnavailable:
            self._later(settlement)
            return None
        except BaseException:
            # A repeat is safe, an unsettled answer is not.
            self._later(settlement)
            raise
        if response is None:
            return None
        if response.HasField("price_time"):
            self._exchange.price_time = response.price_time
        return response.cost_micros

    def _settlement(self, usage: chat_pb2.TokenUsage | None, finish_reason: FinishReason) -> Settlement:
        """With what was used, or letting go when nothing was."""
        commit = None
        if usage is not None:
            self._exchange.usage = usage
            commit = billing_pb2.CommitReservationRequest(
                reservation_id=self._reservation_id,
                deployment=self._exchange.deployment,
                provider=self._exchange.provider,
                usage=usage,
                finish_reason=finish_reason,
                stop=self._exchange.stopped_for,
            )
        return Settlement(self._exchange.caller, self._reservation_id, commit)


class Advance:
    """A reservation made before it is sure to be needed; one that nobody took by the end of the block is let go."""

    def __init__(self, reserving: Coroutine[Any, Any, Spending | None]) -> None:
        self._task = asyncio.create_task(reserving)
        self._taken = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._taken:
            self._task.add_done_callback(_let_go)

    async def spending(self) -> Spending | None:
        """Take it; None when none was made. Raises what reserving raised."""
        # A caller who leaves now must not leave a hold behind: it is let go when it arrives.
        made = await asyncio.shield(self._task)
        self._taken = True
        return made


async def held(reserving: Coroutine[Any, Any, Spending]) -> Spending:
    """What `reserving` makes; of a caller who leaves before it is there, it is let go."""
    with Advance(reserving) as advance:
        made = await advance.spending()
    assert made is not None
    return made


def _looked_at(task: asyncio.Task[int | None]) -> None:
    """A caller who has left reads no failure; the settlement is repeated all the same."""
    if not task.cancelled():
        task.exception()


def _let_go(task: asyncio.Task[Spending | None]) -> None:
    if task.cancelled() or task.exception() is not None:
        return
    if (made := task.result()) is not None:
        with made:
            pass
