"""What the guard is told of an answer before it, and what its failure midway is to the audit."""

from __future__ import annotations

import grpc

from llmmesh.chat.v1 import chat_pb2
from llmmesh.tenant.v1 import tenant_pb2
from tests.support.gateway_room import Front, Tenant, audit_events


async def test_the_guard_model_is_told_the_conversation_and_whether_anybody_watches(front: Front) -> None:
    wary = await front.tenant(
        guard=tenant_pb2.GuardPolicy(model=True, hold_answers=True), tier=chat_pb2.TIER_ENTERPRISE
    )
    front.guard.unsure = True
    question = "a" * 2000 + " Which metro?"
    await wary.chat(question, stream=True)
    await wary.chat(question + "!", stream=False)
    streamed, whole = front.guard.openings
    assert (streamed.policy.model, streamed.policy.hold_answers, streamed.tier) == (
        True,
        True,
        chat_pb2.TIER_ENTERPRISE,
    )
    assert (streamed.whole, whole.whole) == (False, True)
    assert streamed.prompt_unsure
    (turn,) = streamed.conversation
    assert turn.role == chat_pb2.ROLE_USER
    assert turn.content[0].text == question[-1000:]


async def test_without_a_guard_model_it_is_told_nothing(tenant: Tenant, front: Front) -> None:
    await tenant.chat("Which metro?", stream=True)
    (opening,) = front.guard.openings
    assert opening.text
    assert not opening.HasField("policy")
    assert not opening.conversation


async def test_a_layer_that_fails_in_an_answer_is_named_in_the_audit(tenant: Tenant, front: Front) -> None:
    front.guard.fails_in_answers = True
    assert await tenant.failure("Judge the answer.") == (grpc.StatusCode.UNAVAILABLE, "GUARD_UNAVAILABLE")
    (event,) = await audit_events(tenant, rows=1)
    assert event.outcome == "failed"
    assert [(found.rule, found.direction) for found in event.findings] == [("scripted.failed", "output")]
