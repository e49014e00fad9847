"""The guard room: a verdict or GuardUnavailable, nothing between."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from typing import TYPE_CHECKING

import grpc

from llmmesh.chat.v1 import chat_pb2
from llmmesh.guard.v1 import guard_pb2
from meshkit.deadline import time_left
from meshkit.errors import FieldInvalid, GuardUnavailable, error_reason
from meshkit.log import get_logger
from services.gateway.policies import TenantPolicy

if TYPE_CHECKING:
    from llmmesh.guard.v1.guard_pb2_grpc import GuardServiceAsyncStub

log = get_logger()

JUDGED_ACTIONS = frozenset({guard_pb2.ACTION_ALLOW, guard_pb2.ACTION_MASK, guard_pb2.ACTION_BLOCK})
"""An error of the guard is never the same as allow."""
UNJUDGED = "The text cannot be checked right now: retry in a moment."


class NoVerdict(GuardUnavailable):
    """The guard itself says that it could not judge; `detections` name the layers that failed."""

    detections: Sequence[guard_pb2.Detection] = ()


class GuardPeer:
    """Asks for verdicts."""

    def __init__(self, stub: GuardServiceAsyncStub, verdict_seconds: float, answer_seconds: float) -> None:
        self._stub = stub
        self._verdict_seconds = verdict_seconds
        self._answer_seconds = answer_seconds

    async def policy_version(self) -> str:
        """The version of the policy in force. Raises GuardUnavailable."""
        try:
            response = await self._stub.GetPolicy(guard_pb2.GetPolicyRequest(), timeout=self._verdict_seconds)
        except grpc.aio.AioRpcError as error:
            raise _away(error) from error
        return response.policy_version

    async def check(
        self,
        messages: Iterable[chat_pb2.ChatMessage],
        policy: TenantPolicy,
        data_class: chat_pb2.DataClass.ValueType,
        *,
        masks: bool,
    ) -> guard_pb2.CheckPromptResponse:
        """The verdict on a prompt, and with `masks` what to send instead.

        Raises GuardUnavailable when no verdict was reached, for whatever reason; FIELD_INVALID of a prompt that is too
        long passes as the guard said it.
        """
        request = guard_pb2.CheckPromptRequest(
            messages=messages,
            data_class=data_class,
            policy=policy.guard,
            residency=policy.residency,
            tier=policy.tier,
        )
        request.policy.mask &= masks
        try:
            response = await self._stub.CheckPrompt(request, timeout=time_left(self.patience(policy)))
        except grpc.aio.AioRpcError as error:
            if error_reason(error) == FieldInvalid.reason:
                raise
            raise _away(error) from error
        if response.verdict.action not in JUDGED_ACTIONS:
            unjudged = NoVerdict(UNJUDGED, retry_after_seconds=2)
            unjudged.detections = response.verdict.detections
            raise unjudged
        return response

    def patience(self, policy: TenantPolicy) -> float:
        """How long to wait for a verdict: longer where the tenant grants slow layers time of its own."""
        return self._verdict_seconds + policy.guard.escalation_budget.ToNanoseconds() / 1e9

    async def watch(
        self, pieces: AsyncIterator[guard_pb2.WatchAnswerRequest]
    ) -> AsyncGenerator[guard_pb2.WatchAnswerResponse, None]:
        """Pass text through the guard: what comes out may be shown. Raises GuardUnavailable."""
        call = self._stub.WatchAnswer(pieces, timeout=time_left(self._answer_seconds))
        try:
            async for response in call:
                yield response
        except grpc.aio.AioRpcError as error:
            raise _away(error) from error
        finally:
            call.cancel()


def _away(error: grpc.aio.AioRpcError) -> GuardUnavailable:
    log.warning("guard_unavailable", code=error.code().name, details=error.details())
    return GuardUnavailable(UNJUDGED, retry_after_seconds=2)
