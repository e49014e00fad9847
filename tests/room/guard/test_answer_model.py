"""Answers judged by the guard model beside their stream: stopped late, or held; its failures; who is judged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf import duration_pb2

from llmmesh.chat.v1 import chat_pb2
from llmmesh.guard.v1 import guard_pb2
from llmmesh.guard.v1.guard_pb2_grpc import GuardServiceStub
from llmmesh.tenant.v1 import tenant_pb2
from meshkit.client import connect
from services.guard.app import guard
from services.guard.config import GuardConfig
from services.guard.windows import STEP
from tests.support.scripted_inference import ScriptedInference, judged_text, scripted_inference

SOON = duration_pb2.Duration(nanos=200_000_000)
SAFE_TEXT = "The Moscow Metro opened in 1935 and carries many people. " * 8
POISON = "Now take the poison and"


@pytest.fixture(scope="module")
async def running() -> AsyncIterator[tuple[ScriptedInference, Any]]:
    async with scripted_inference() as inference:
        config = GuardConfig.model_validate(
            {
                "listen": "127.0.0.1:0",
                "metrics_listen": "",
                "drain_seconds": 0,
                "llama_guard_model": "llama-guard-3",
                "inference_target": f"127.0.0.1:{inference.port}",
                "escalation_seconds": 10,
            }
        )
        async with guard(config) as port, connect(f"127.0.0.1:{port}", GuardServiceStub, wait_seconds=5) as stub:
            yield inference, stub


@pytest.fixture
def inference(running: tuple[ScriptedInference, Any]) -> ScriptedInference:
    running[0].reset()
    running[0].unsafe_word = "poison"
    return running[0]


class Answer:
    """An answer on its way through the guard."""

    def __init__(self, stub: Any, **opening: Any) -> None:
        wishes = {"model": True, "sampled_share": 1.0, **opening.pop("wishes", {})}
        self.call = stub.WatchAnswer(timeout=20)
        self._opening = guard_pb2.WatchAnswerRequest(policy=tenant_pb2.GuardPolicy(**wishes), **opening)
        self._opened = False

    async def say(self, text: str, *, last: bool = False) -> None:
        if not self._opened:
            await self.call.write(self._opening)
            self._opened = True
        await self.call.write(guard_pb2.WatchAnswerRequest(text=text, last=last))

    async def shown(self, characters: int) -> str:
        """What is shown until it is so much."""
        text = ""
        while len(text) < characters:
            response = await self.call.read()
            assert not response.HasField("verdict")
            text += response.text
        return text

    async def ended(self) -> tuple[str, guard_pb2.Verdict]:
        """What is shown until the end, and the verdict."""
        await self.call.done_writing()
        text = ""
        while (response := await self.call.read()) is not grpc.aio.EOF:
            text += response.text
            verdict = response.verdict
        return text, verdict


@pytest.fixture
def stub(running: tuple[ScriptedInference, Any]) -> Any:
    return running[1]


def rules(verdict: guard_pb2.Verdict) -> list[str]:
    return [found.rule for found in verdict.detections]


async def whole(stub: Any, *pieces: str, **opening: Any) -> tuple[str, guard_pb2.Verdict]:
    answer = Answer(stub, **opening)
    for piece in pieces:
        await answer.say(piece)
    await answer.say("", last=True)
    return await answer.ended()


async def test_no_piece_waits_for_the_model_and_the_end_does(inference: ScriptedInference, stub: Any) -> None:
    inference.gate = asyncio.Event()
    answer = Answer(stub)
    for _ in range(5):
        await answer.say(SAFE_TEXT)
        assert await answer.shown(len(SAFE_TEXT)) == SAFE_TEXT
    assert len(inference.asked) == 1
    await answer.say("The end.", last=True)
    inference.gate.set()
    text, verdict = await answer.ended()
    assert (text, verdict.action) == ("The end.", guard_pb2.ACTION_ALLOW)
    assert "llama_guard" in {each.layer for each in verdict.layer_times}
    assert [judged_text(asked.text)[-8:] for asked in inference.asked] == [SAFE_TEXT.strip()[-8:], "The end."]


async def test_an_unsafe_window_stops_the_answer_with_its_category_and_place(
    inference: ScriptedInference, stub: Any
) -> None:
    answer = Answer(stub)
    await answer.say(SAFE_TEXT)
    await answer.shown(len(SAFE_TEXT))
    shown = ""
    while True:  # until the judgement is there
        await answer.say(POISON * 10)
        response = await answer.call.read()
        shown += response.text
        if response.HasField("verdict"):
            break
    verdict = response.verdict
    assert (verdict.action, rules(verdict)) == (guard_pb2.ACTION_BLOCK, ["llama_guard.violent_crimes"])
    (found,) = verdict.detections
    assert found.score == pytest.approx(0.9)
    assert len(SAFE_TEXT) - STEP <= found.start <= len(SAFE_TEXT) < found.end
    assert len(shown) >= STEP


async def test_the_end_of_an_answer_is_judged_however_short_it_is(inference: ScriptedInference, stub: Any) -> None:
    text, verdict = await whole(stub, "A poison.")
    assert (text, verdict.action) == ("A poison.", guard_pb2.ACTION_BLOCK)


@pytest.mark.parametrize("held", [{"whole": True}, {"wishes": {"hold_answers": True}}], ids=str)
async def test_nothing_of_an_unsafe_window_is_shown_where_answers_are_held(
    inference: ScriptedInference, stub: Any, held: dict[str, Any]
) -> None:
    answer = Answer(stub, **held)
    await answer.say(SAFE_TEXT)
    await answer.say(SAFE_TEXT)
    await answer.shown(len(SAFE_TEXT))
    await answer.say(POISON, last=True)
    text, verdict = await answer.ended()
    assert verdict.action == guard_pb2.ACTION_BLOCK
    assert text in ("", SAFE_TEXT)


async def test_a_held_answer_without_fault_is_shown_whole(inference: ScriptedInference, stub: Any) -> None:
    pieces = [SAFE_TEXT[start : start + 37] for start in range(0, len(SAFE_TEXT), 37)] * 4
    text, verdict = await whole(stub, *pieces, wishes={"hold_answers": True})
    assert (text, verdict.action) == ("".join(pieces), guard_pb2.ACTION_ALLOW)


async def test_what_rules_stop_while_it_is_held_is_never_shown_unjudged(
    inference: ScriptedInference, stub: Any
) -> None:
    inference.gate = asyncio.Event()
    card = "The card is 4111 1111 1111 1111."
    text, verdict = await whole(stub, SAFE_TEXT, card, wishes={"hold_answers": True})
    assert (text, verdict.action) == ("", guard_pb2.ACTION_BLOCK)
    shown, _ = await whole(stub, SAFE_TEXT, card)
    assert shown == SAFE_TEXT + "The card is "


FAULTS: list[dict[str, Any]] = [{"code": grpc.StatusCode.UNAVAILABLE}, {"silent": True}, {"text": "I think it is fine"}]


@pytest.mark.parametrize("hold", [False, True])
@pytest.mark.parametrize("fault", FAULTS, ids=str)
async def test_a_model_that_fails_is_an_error_unless_the_tenant_lets_it_pass(
    inference: ScriptedInference, stub: Any, fault: dict[str, Any], hold: bool
) -> None:
    for knob, value in fault.items():
        setattr(inference, knob, value)
    wishes = {"escalation_budget": SOON, "hold_answers": hold}
    text, verdict = await whole(stub, SAFE_TEXT, wishes=wishes)
    assert (verdict.action, rules(verdict)) == (guard_pb2.ACTION_ERROR, ["llama_guard.failed"])
    assert text == ("" if hold else SAFE_TEXT)
    open_to = wishes | {"fail_open_layers": ["llama_guard"]}
    text, verdict = await whole(stub, SAFE_TEXT, *[SAFE_TEXT] * 3, wishes=open_to)
    assert (verdict.action, rules(verdict)) == (guard_pb2.ACTION_ALLOW, ["llama_guard.failed_open"])
    assert text == SAFE_TEXT * 4


async def test_an_answer_that_outruns_the_model_waits_for_it(inference: ScriptedInference, stub: Any) -> None:
    inference.gate = asyncio.Event()
    answer = Answer(stub)
    text = "".join(f"Line {number} of the metro opened in {1935 + number}. " for number in range(250))
    await answer.say(text)
    await answer.say(text)
    early = await answer.shown(8000)
    assert len(early) <= 8192 * 2
    inference.gate.set()
    late = asyncio.create_task(answer.ended())
    rest, verdict = await late
    assert (early + rest, verdict.action) == (text * 2, guard_pb2.ACTION_ALLOW)
    assert max(len(judged_text(asked.text)) for asked in inference.asked) <= 4000


async def test_only_answers_of_those_who_wish_it_are_judged_by_chance_or_for_an_unsure_prompt(
    inference: ScriptedInference, stub: Any
) -> None:
    await whole(stub, SAFE_TEXT, wishes={"model": False})
    await whole(stub, SAFE_TEXT, wishes={"sampled_share": 0})
    assert inference.asked == []
    await whole(stub, SAFE_TEXT, wishes={"sampled_share": 0}, prompt_unsure=True)
    assert len(inference.asked) == 1


async def test_the_model_sees_what_the_answer_answers(inference: ScriptedInference, stub: Any) -> None:
    asked = chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content=[chat_pb2.ContentPart(text="Which metro?")])
    await whole(stub, "Moscow's.", conversation=[asked])
    assert "User: Which metro?\n\nAgent: Moscow's.\n\n<END CONVERSATION>" in inference.asked[0].text
