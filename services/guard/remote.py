"""Judges cases by a guard that runs, all of its layers included: the slow ones too, where they are set up."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import grpc

from llmmesh.guard.v1 import guard_pb2
from llmmesh.guard.v1.guard_pb2_grpc import GuardServiceStub
from llmmesh.tenant.v1 import tenant_pb2
from meshkit.client import connect
from meshkit.identity import Identity, acting_as
from services.guard.azure import LAYER as CLOUD

if TYPE_CHECKING:
    from llmmesh.guard.v1.guard_pb2_grpc import GuardServiceAsyncStub

CALLER = Identity("guard-test", "guard-test", frozenset({"admin"}), "guard-test")
EVERY_PROMPT = tenant_pb2.GuardPolicy(model=True, sampled_share=1.0)
SLOW_LAYERS = "embedding, llama_guard, azure: not there: a guard that runs has them, see --target"
AT_ONCE = 4
CONNECT_SECONDS, ANSWER_SECONDS = 10.0, 120.0
WORDS = {
    guard_pb2.LAYER_OUTCOME_ABSENT: "is not there",
    guard_pb2.LAYER_OUTCOME_FAILED: "gave no judgement",
    guard_pb2.LAYER_OUTCOME_NOT_ASKED: "was not asked",
}


class GuardAway(Exception):
    """The guard does not answer; the message says where, and what came instead."""


@dataclass(slots=True)
class Judged:
    """What a running guard said of each text."""

    refusals: dict[str, Mapping[str, bool]] = field(default_factory=dict)
    """By text, which of the layers that judged it refuse it. A layer is asked about what those before it pass."""
    silences: dict[tuple[str, guard_pb2.LayerOutcome.ValueType], int] = field(default_factory=dict)
    """By layer and reason, how many texts it did not judge."""

    def take(self, text: str, response: guard_pb2.CheckTextResponse) -> None:
        """Note what was said of one text."""
        blocked = response.verdict.action == guard_pb2.ACTION_BLOCK
        named = {found.layer for found in response.verdict.detections if found.severity >= guard_pb2.RISK_LEVEL_HIGH}
        judged = [state.layer for state in response.layers if state.outcome == guard_pb2.LAYER_OUTCOME_JUDGED]
        self.refusals[text] = {layer: blocked and layer in named for layer in judged}
        for state in response.layers:
            if state.outcome in WORDS:
                key = state.layer, state.outcome
                self.silences[key] = self.silences.get(key, 0) + 1

    def told(self) -> Iterator[str]:
        """Which layers were silent, how often and why."""
        for (layer, outcome), count in sorted(self.silences.items()):
            never = layer == CLOUD and outcome == guard_pb2.LAYER_OUTCOME_NOT_ASKED
            why = " (guard:check shows nothing to a cloud)" if never else ""
            yield f"{layer}: {WORDS[outcome]} for {count} of {len(self.refusals)} texts{why}"


async def judged(target: str, texts: Iterable[str], wait_seconds: float = CONNECT_SECONDS) -> Judged:
    """What the guard at `target` says of each text, with every layer wished for.

    Raises:
        GuardAway: If nobody answers there, or not what was asked.
    """
    result, gate = Judged(), asyncio.Semaphore(AT_ONCE)
    try:
        with acting_as(CALLER):
            async with connect(target, GuardServiceStub, wait_seconds=wait_seconds) as stub:
                guard = cast("GuardServiceAsyncStub", stub)
                await asyncio.gather(*(_ask(guard, text, result, gate) for text in dict.fromkeys(texts)))
    except TimeoutError:
        raise GuardAway(f"nobody answers at {target}") from None
    except grpc.aio.AioRpcError as error:
        raise GuardAway(f"{target} answers {error.code().name}: {error.details()}") from None
    return result


async def _ask(guard: GuardServiceAsyncStub, text: str, result: Judged, gate: asyncio.Semaphore) -> None:
    async with gate:
        request = guard_pb2.CheckTextRequest(text=text, policy=EVERY_PROMPT)
        result.take(text, await guard.CheckText(request, timeout=ANSWER_SECONDS))
