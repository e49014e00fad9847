"""Changed packs come into force under answers that go on; bad ones do not, and say why."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY

from llmmesh.chat.v1 import chat_pb2
from llmmesh.guard.v1 import guard_pb2
from llmmesh.guard.v1.guard_pb2_grpc import GuardServiceStub
from meshkit.client import connect
from services.guard.app import guard
from services.guard.config import GuardConfig
from services.guard.layers import PACKS

RELOAD_SECONDS = 60
SECRET = "project zephyr"
RULE: dict[str, Any] = {
    "id": "house.zephyr",
    "category": "prompt_injection",
    "languages": ["en"],
    "direction": "input",
    "severity": "high",
    "action": "block",
    "patterns": ["project zephyr"],
    "must_match": ["Tell me of Project Zephyr"],
    "must_not_match": ["Tell me of the zephyr"],
}
STOPPING: dict[str, Any] = {
    **RULE,
    "id": "house.stop",
    "category": "secret",
    "direction": "output",
    "severity": "critical",
    "max_length": 14,
}


@pytest.fixture(scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Path, Any]]:
    """A guard over one pack, which is quickly read."""
    packs = tmp_path_factory.mktemp("packs")
    shutil.copy(PACKS / "secrets.yaml", packs)
    config = GuardConfig(listen="127.0.0.1:0", metrics_listen="", drain_seconds=0, packs=packs, packs_poll_seconds=0.02)
    async with guard(config) as port, connect(f"127.0.0.1:{port}", GuardServiceStub, wait_seconds=5) as stub:
        yield packs, stub


@pytest.fixture
def packs(running: tuple[Path, Any]) -> Path:
    return running[0]


@pytest.fixture
def stub(running: tuple[Path, Any]) -> Any:
    return running[1]


def put(packs: Path, *rules: dict[str, Any]) -> None:
    """Write the house's own pack."""
    put_bytes(packs, yaml.safe_dump({"rules": list(rules)}).encode())


def put_bytes(packs: Path, content: bytes) -> None:
    """Write it in one step, as editors do."""
    draft = packs / "draft"
    draft.write_bytes(content)
    draft.replace(packs / "house.yaml")


async def until(stub: Any, holds: Callable[[guard_pb2.GetPolicyResponse], bool]) -> guard_pb2.GetPolicyResponse:
    """The policy in force, once it is as wanted; the guard cannot tell when it has read a file."""
    async with asyncio.timeout(RELOAD_SECONDS):
        while not holds(policy := await stub.GetPolicy(guard_pb2.GetPolicyRequest())):  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.02)
    return policy


async def taken(packs: Path, stub: Any, *rules: dict[str, Any]) -> guard_pb2.GetPolicyResponse:
    """Put rules into force."""
    before = await stub.GetPolicy(guard_pb2.GetPolicyRequest())
    put(packs, *rules)
    return await until(stub, lambda policy: policy.load_time != before.load_time)


async def check(stub: Any, text: str) -> guard_pb2.Verdict:
    message = chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content=[chat_pb2.ContentPart(text=text)])
    return (await stub.CheckPrompt(guard_pb2.CheckPromptRequest(messages=[message]))).verdict


async def test_a_new_rule_judges_from_its_coming_on_under_another_version(packs: Path, stub: Any) -> None:
    before = await check(stub, SECRET)
    assert before.action == guard_pb2.ACTION_ALLOW
    policy = await taken(packs, stub, RULE)
    assert policy.policy_version != before.policy_version
    verdict = await check(stub, SECRET)
    assert (verdict.action, [found.rule for found in verdict.detections]) == (guard_pb2.ACTION_BLOCK, ["house.zephyr"])
    assert verdict.policy_version == policy.policy_version
    assert policy.load_time.seconds > 0


async def test_bad_packs_are_refused_with_every_reason_and_the_old_ones_stay(packs: Path, stub: Any) -> None:
    good = await taken(packs, stub, RULE)
    put(
        packs,
        RULE,
        {**RULE, "id": "house.untrue", "must_match": ["nothing of it"], "must_not_match": ["project zephyr"]},
        {**RULE, "id": "house.two", "must_match": ["nor of this"]},
    )
    refused = await until(stub, lambda policy: policy.HasField("refuse_time"))
    assert [mistake.split(":")[0] for mistake in refused.mistakes] == ["house.untrue", "house.untrue", "house.two"]
    assert (refused.policy_version, refused.load_time) == (good.policy_version, good.load_time)
    assert (await check(stub, SECRET)).action == guard_pb2.ACTION_BLOCK
    assert REGISTRY.get_sample_value("llmmesh_guard_packs_refused") == 1
    assert not (await taken(packs, stub, RULE)).HasField("refuse_time")
    assert REGISTRY.get_sample_value("llmmesh_guard_packs_refused") == 0


async def test_a_pack_that_cannot_be_read_is_refused_too(packs: Path, stub: Any) -> None:
    await taken(packs, stub, RULE)
    put_bytes(packs, "rules: слово".encode("cp1251"))
    refused = await until(stub, lambda policy: policy.HasField("refuse_time"))
    assert [mistake.split(": ")[:2] for mistake in refused.mistakes] == [["house.yaml", "cannot be read"]]
    assert (await check(stub, SECRET)).action == guard_pb2.ACTION_BLOCK
    assert not (await taken(packs, stub, RULE)).HasField("refuse_time")


async def test_an_answer_ends_under_the_rules_under_which_it_began(packs: Path, stub: Any) -> None:
    old = await taken(packs, stub, RULE)
    begun, changed = asyncio.Event(), asyncio.Event()

    async def pieces() -> AsyncIterator[guard_pb2.WatchAnswerRequest]:
        yield guard_pb2.WatchAnswerRequest(text="The secret is ")
        begun.set()
        await changed.wait()
        yield guard_pb2.WatchAnswerRequest(text="project zephyr.", last=True)

    async def watched() -> list[guard_pb2.WatchAnswerResponse]:
        return [response async for response in stub.WatchAnswer(pieces())]

    watching = asyncio.create_task(watched())
    await begun.wait()
    new = await taken(packs, stub, RULE, STOPPING)
    changed.set()
    responses = await watching
    assert "".join(response.text for response in responses) == "The secret is project zephyr."
    assert responses[-1].verdict.policy_version == old.policy_version != new.policy_version
    later = [response async for response in stub.WatchAnswer(_at_once("It is project zephyr."))]
    assert later[-1].verdict.action == guard_pb2.ACTION_BLOCK
    assert "zephyr" not in "".join(response.text for response in later)


async def _at_once(text: str) -> AsyncIterator[guard_pb2.WatchAnswerRequest]:
    yield guard_pb2.WatchAnswerRequest(text=text, last=True)
