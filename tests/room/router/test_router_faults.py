"""What a caller hears of each way a provider can fail: a typed error, and not a word of the provider's or of a key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from llmmesh.chat.v1 import chat_pb2
from meshkit.errors import error_info, error_reason
from tests.support.provider_cases import private_authority
from tests.support.router_room import RouterRoom, cloud
from tests.support.scripted_provider import scripted_provider

KEY = "sk-proj-Zm94ZXMganVtcCBvdmVyIGRvZ3M"
TOLD_BY_PROVIDER = f"The words 'my salary' are refused for key {KEY} of account 4217"
PROMPT = "Tell me about my salary"
QUICK = {"connect_seconds": 0.5, "first_token_seconds": 0.3, "idle_chunk_seconds": 0.3}
NEVER_LOGGED = ("salary", KEY, "Please log in", "quick brown")
NEVER_TOLD = (*NEVER_LOGGED, "4217", "refused for", "scripted failure")
"""Words of a provider help whoever reads our log, but are no caller's business."""


def failing(status: int, **knobs: Any) -> dict[str, Any]:
    """Knobs of a provider that refuses everything and quotes what it should not."""
    return {"fail_next": -1, "fail_status": status, "error_message": TOLD_BY_PROVIDER, **knobs}


BEFORE_THE_FIRST_TOKEN = {
    "wrong credentials": (failing(401), "PROVIDER_UNAVAILABLE", "PROVIDER_REFUSED"),
    "an account that is closed": (failing(403), "PROVIDER_UNAVAILABLE", "PROVIDER_REFUSED"),
    "accepts and never answers": ({"headers_ms": 60_000}, "PROVIDER_UNAVAILABLE", "PROVIDER_TIMEOUT"),
    "answers 200 and says nothing": ({"stall_after_chunks": 0}, "PROVIDER_UNAVAILABLE", "PROVIDER_TIMEOUT"),
    "HTML instead of JSON": ({"html": True}, "PROVIDER_UNAVAILABLE", "PROVIDER_UNAVAILABLE"),
    "broken JSON": ({"malformed_chunk": 0}, "PROVIDER_UNAVAILABLE", "PROVIDER_UNAVAILABLE"),
    "an error inside the stream": (
        {"error_chunk": 0, "error_message": TOLD_BY_PROVIDER},
        "PROVIDER_UNAVAILABLE",
        "PROVIDER_UNAVAILABLE",
    ),
    "hangs up": ({"cut_after_chunks": 0}, "PROVIDER_UNAVAILABLE", "PROVIDER_UNAVAILABLE"),
    "too many requests": (failing(429, retry_after="7"), "PROVIDER_UNAVAILABLE", "RATE_LIMITED"),
    "fails by itself": (failing(500), "PROVIDER_UNAVAILABLE", "PROVIDER_UNAVAILABLE"),
    "context too long": ({"too_long": True}, "CONTEXT_TOO_LONG", ""),
    "a request it does not take": (failing(400), "PROVIDER_REFUSED", ""),
}


@pytest.fixture
def alone(make_room, monkeypatch: pytest.MonkeyPatch):
    """Run a router with one cloud; `changes` go into its routes entry."""
    monkeypatch.setenv("SCRIPTED_KEY", KEY)
    return lambda **changes: make_room(lambda cheap, _: [cloud("cheap", cheap, timeouts=QUICK, **changes)])


def check(error: grpc.aio.AioRpcError, logged: str) -> None:
    """Nothing of the provider's is in the error, nothing of the caller's or of ours in the log."""
    told = f"{error.details()} {dict(error_info(error).metadata)}"
    assert [text for text in NEVER_TOLD if text in told] == []
    assert [text for text in NEVER_LOGGED if text in logged] == []


async def heard(room: RouterRoom, capsys: pytest.CaptureFixture[str]) -> tuple[str | None, str]:
    """Reason and text of the error a caller gets."""
    error = await room.failure(PROMPT)
    check(error, capsys.readouterr().out)
    return error_reason(error), error.details() or ""


@pytest.mark.parametrize("fault", BEFORE_THE_FIRST_TOKEN)
async def test_a_fault_before_the_first_token_is_typed_and_gives_nothing_away(alone, fault, capsys):
    knobs, reason, of_the_deployment = BEFORE_THE_FIRST_TOKEN[fault]
    async with alone() as room:
        room.cheap.set(**knobs)
        told, text = await heard(room, capsys)
        assert told == reason
        assert not of_the_deployment or f"cheap: {of_the_deployment}" in text
        await room.cheap.until(lambda now: now.open_streams == 0)


UNREACHABLE = {"no such name": "https://llmmesh.invalid/v1", "nobody listens": "https://127.0.0.1:1/v1"}


@pytest.mark.parametrize("why", UNREACHABLE)
async def test_a_provider_that_cannot_be_reached_is_unavailable(alone, why, capsys):
    async with alone(base_url=UNREACHABLE[why]) as room:
        told, text = await heard(room, capsys)
    assert (told, "cheap: PROVIDER_" in text) == ("PROVIDER_UNAVAILABLE", True)


async def test_a_certificate_of_an_unknown_authority_is_refused_before_anything_is_sent(alone, tmp_path: Path, capsys):
    folders = [tmp_path / name for name in ("theirs", "trusted")]
    for folder in folders:
        folder.mkdir()
    theirs, trusted = map(private_authority, folders)
    async with (
        scripted_provider(tls=theirs.server) as server,
        alone(base_url=server.base_url, ca_file=str(trusted.pem)) as room,
    ):
        assert (await heard(room, capsys))[0] == "PROVIDER_UNAVAILABLE"
        assert server.counters.requests == 0


BREAKS = {
    "cut": {"cut_after_chunks": 3},
    "falls silent": {"stall_after_chunks": 3},
    "broken JSON": {"malformed_chunk": 3},
    "an error inside the stream": {"error_chunk": 3, "error_message": TOLD_BY_PROVIDER},
}


@pytest.mark.parametrize("fault", BREAKS)
async def test_a_fault_after_the_first_token_ends_the_stream_with_a_typed_error(alone, fault, capsys):
    async with alone() as room:
        room.cheap.set(reply="one two three four five", **BREAKS[fault])
        told, error = await room.broken(PROMPT)
        assert (told.text, error_reason(error)) == ("one two three", "PROVIDER_STREAM_BROKEN")
        assert not any(step.HasField("finished") for step in told.steps)
        check(error, capsys.readouterr().out)


async def test_half_a_character_at_the_border_of_two_chunks_is_no_fault(alone):
    async with alone() as room:
        room.cheap.set(reply="Съешь ещё 🥐 булок", piece_bytes=1)
        assert (await room.answer()).text == "Съешь ещё 🥐 булок"


async def test_usage_that_is_missing_is_estimated_and_that_contradicts_itself_is_never_negative(alone):
    async with alone() as room:
        room.cheap.set(omit_usage=True)
        assert (await room.answer()).finished.usage.estimated
        room.cheap.set(omit_usage=False, contradict_usage=True)
        usage = (await room.answer()).finished.usage
        assert min(value for _, value in usage.ListFields()) >= 0
        assert usage.output_tokens + usage.reasoning_tokens == 9


async def test_tool_arguments_that_are_no_json_reach_the_caller_as_they_are(alone):
    tool = '{"type":"function","function":{"name":"forecast","parameters":{}}}'
    async with alone() as room:
        room.cheap.set(tool_arguments='{"city": Paris')
        told = await room.answer(options=chat_pb2.GenerationOptions(tools_json=[tool]))
        pieces = [call.arguments for delta in told.deltas for call in delta.tool_calls]
        assert "".join(pieces) == '{"city": Paris'
        assert told.finished.finish_reason == chat_pb2.FINISH_REASON_TOOL_CALLS
