"""The embedding layer over the wire: with the real model, with one that says what it is told, and with none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import duration_pb2

from llmmesh.chat.v1 import chat_pb2
from llmmesh.guard.v1 import guard_pb2
from llmmesh.guard.v1.guard_pb2_grpc import GuardServiceStub
from llmmesh.tenant.v1 import tenant_pb2
from meshkit.client import connect
from meshkit.identity import Identity, acting_as
from services.guard.app import guard
from services.guard.config import GuardConfig
from services.guard.meaning import MeaningHead
from services.inference.app import inference
from services.inference.config import InferenceConfig
from tests.support.doubtful import doubtful_prompts
from tests.support.scripted_inference import scripted_inference

ADA = Identity("acme", "key-1", frozenset({"developer"}), "req-1")
ALONE = {"listen": "127.0.0.1:0", "metrics_listen": "", "drain_seconds": 0}
HELLO = "What is the capital of Russia?"
FAILED = "embedding.failed"
IN_HASTE = tenant_pb2.GuardPolicy(escalation_budget=duration_pb2.Duration(nanos=10_000_000))
MOST = 20


@asynccontextmanager
async def guarding(port: int, **settings: Any) -> AsyncIterator[Any]:
    """A guard that asks the inference room at `port`."""
    config = GuardConfig.model_validate({**ALONE, "inference_target": f"127.0.0.1:{port}", **settings})
    async with guard(config) as own, connect(f"127.0.0.1:{own}", GuardServiceStub, wait_seconds=5) as stub:
        yield stub


def vector(*, attack: bool) -> list[float]:
    """What the model says of a text that could not be more of one side."""
    direction = MeaningHead.load().direction
    side = direction if attack else -direction
    return [float(each) for each in side / np.linalg.norm(side)]


def doubtful(*, stand_in_refuses: bool) -> str:
    return next(doubtful_prompts(stand_in_refuses=stand_in_refuses)).text


async def check(stub: Any, text: str, policy: tenant_pb2.GuardPolicy | None = None) -> guard_pb2.Verdict:
    message = chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content=[chat_pb2.ContentPart(text=text)])
    with acting_as(ADA):
        return (await stub.CheckPrompt(guard_pb2.CheckPromptRequest(messages=[message], policy=policy))).verdict


async def outcome(stub: Any, text: str) -> guard_pb2.LayerOutcome.ValueType:
    with acting_as(ADA):
        tried = await stub.CheckText(guard_pb2.CheckTextRequest(text=text))
    return {each.layer: each.outcome for each in tried.layers}["embedding"]


def rules(verdict: guard_pb2.Verdict) -> list[str]:
    return [found.rule for found in verdict.detections]


async def test_it_decides_either_way_where_the_classifier_is_unsure_and_is_asked_nothing_else() -> None:
    refused, passed = doubtful(stand_in_refuses=True), doubtful(stand_in_refuses=False)
    async with scripted_inference() as model, guarding(model.port) as stub:
        model.vector = vector(attack=False)
        assert (await check(stub, refused)).action == guard_pb2.ACTION_ALLOW
        model.vector = vector(attack=True)
        verdict = await check(stub, passed)
        assert (verdict.action, rules(verdict)) == (guard_pb2.ACTION_BLOCK, ["embedding.injection"])
        assert model.embedded == [refused, passed]
        assert await outcome(stub, HELLO) == guard_pb2.LAYER_OUTCOME_NOT_ASKED
        assert await outcome(stub, passed) == guard_pb2.LAYER_OUTCOME_JUDGED
        assert model.embedded == [refused, passed, passed]


@pytest.mark.parametrize(
    "fault",
    [{"code": grpc.StatusCode.UNAVAILABLE}, {"silent": True}, {"vector": [1.0]}, {"without_adapters": True}],
    ids=str,
)
async def test_with_the_model_away_slow_or_wrong_the_classifier_decides_and_the_verdict_says_so(
    fault: dict[str, Any],
) -> None:
    clear, unclear = doubtful(stand_in_refuses=True), doubtful(stand_in_refuses=False)
    async with scripted_inference() as model, guarding(model.port, escalation_seconds=0.2) as stub:
        for knob, value in fault.items():
            setattr(model, knob, value)
        refused = await check(stub, clear)
        assert (refused.action, sorted(rules(refused))) == (guard_pb2.ACTION_BLOCK, ["classifier.injection", FAILED])
        assert model.embedded
        passed = await check(stub, unclear)
        assert (passed.action, sorted(rules(passed))) == (guard_pb2.ACTION_ALLOW, ["classifier.unsure", FAILED])
        assert len(model.embedded) == 1, "after a failure nobody waits for it"


async def test_a_budget_that_it_cannot_meet_costs_nobody_else_the_layer() -> None:
    prompt = doubtful(stand_in_refuses=True)
    async with scripted_inference() as model, guarding(model.port, escalation_seconds=5) as stub:
        model.vector, model.silent = vector(attack=False), True
        assert FAILED in rules(await check(stub, prompt, IN_HASTE))
        model.silent = False
        assert (await check(stub, prompt)).action == guard_pb2.ACTION_ALLOW


async def test_without_the_layer_the_classifier_decides_and_it_is_told_as_absent(free_port: int) -> None:
    async with guarding(free_port, embedding=False) as stub:
        verdict = await check(stub, doubtful(stand_in_refuses=True))
        assert (verdict.action, rules(verdict)) == (guard_pb2.ACTION_BLOCK, ["classifier.injection"])
        assert await outcome(stub, HELLO) == guard_pb2.LAYER_OUTCOME_ABSENT


async def test_the_real_model_tells_doubtful_prompts_apart_that_training_never_saw() -> None:
    config = InferenceConfig(listen="127.0.0.1:0", metrics_listen="", models={})
    doubts = [each for refuses in (True, False) for each in doubtful_prompts(stand_in_refuses=refuses)]
    unseen = [each for each in doubts if each.part == "held_out"]
    attacks, innocent = ([each for each in unseen if each.is_attack is kind][:MOST] for kind in (True, False))
    async with inference(config) as port, guarding(port, escalation_seconds=10) as stub:
        verdicts = [(each, await check(stub, each.text)) for each in (*attacks, *innocent)]
    assert all(FAILED not in rules(verdict) for _, verdict in verdicts)
    refused = [each.is_attack for each, verdict in verdicts if verdict.action == guard_pb2.ACTION_BLOCK]
    caught, in_vain = refused.count(True), refused.count(False)
    print(f"refused {caught} of {len(attacks)} doubtful attacks, {in_vain} of {len(innocent)} innocent prompts")
    assert caught / len(attacks) > 2 * in_vain / len(innocent)
