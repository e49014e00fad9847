"""The providers of the country behind the whole router."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmmesh.chat.v1 import chat_pb2
from meshkit.errors import error_reason
from tests.support.provider_cases import BY_NAME, ENVIRONMENT, Authority, private_authority, routes_entry
from tests.support.router_room import cloud
from tests.support.scripted_provider import ScriptedProvider, scripted_provider

HEDGED = {"strategies": {"hedges": {"m": {"after_seconds": 0.05}}}}


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return private_authority(tmp_path)


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


def entry(name: str, server: ScriptedProvider, authority: Authority, /, **changes: object) -> dict[str, object]:
    """The case's entry as YAML can hold it."""
    written = routes_entry(BY_NAME[name], server, authority)
    return {key: str(value) if isinstance(value, Path) else value for key, value in {**written, **changes}.items()}


@pytest.mark.parametrize("name", ["gigachat", "yandex", "cloudru"])
async def test_data_of_russia_is_answered_in_russia(make_room, authority, name):
    case = BY_NAME[name]
    tls = authority.server if case.tls else None
    async with (
        scripted_provider(wire=case.wire(), tls=tls, **case.script) as server,
        make_room(lambda cheap, _: [cloud("abroad", cheap), entry(name, server, authority)]) as room,
    ):
        told = await room.answer(residency=chat_pb2.DATA_RESIDENCY_RUSSIA)
        assert (told.route.deployment, told.text) == (name, server.script.reply)
        assert told.finished.usage.output_tokens == 9
        assert room.cheap.counters.requests == 0


async def test_when_gigachat_has_no_turn_to_spare_another_answers_and_its_breaker_stays_closed(make_room, authority):
    case = BY_NAME["gigachat"]

    def entries(cheap: ScriptedProvider, _: ScriptedProvider) -> list[dict[str, object]]:
        first = entry("gigachat", server, authority, concurrency=1, queue_seconds=0)
        return [first, cloud("second", cheap)]

    async with scripted_provider(wire=case.wire(), tls=authority.server) as server, make_room(entries) as room:
        server.set(stall_after_chunks=1)
        holding = room.stub.StreamGenerateChat(room.request(), timeout=20)
        assert (await holding.read()).route.deployment == "gigachat"
        for _ in range(4):
            told = await room.answer()
            assert told.route.deployment == "second"
            assert told.route.failed_attempts[0].reason == "RATE_LIMITED"
        holding.cancel()
        await server.until(lambda now: now.aborted_streams == 1)
        server.set(stall_after_chunks=-1)
        assert (await room.answer()).route.deployment == "gigachat"


async def test_what_waits_for_its_turn_while_another_answers_costs_nothing(make_room, authority):
    case, turns = BY_NAME["gigachat"], {"concurrency": 1, "queue_seconds": 20}
    patient = {"connect_seconds": 2, "first_token_seconds": 20, "idle_chunk_seconds": 20}

    def entries(cheap: ScriptedProvider, _: ScriptedProvider) -> list[dict[str, object]]:
        holder = entry("gigachat", server, authority, name="holder", serves="held", timeouts=patient, **turns)
        return [holder, entry("gigachat", server, authority, timeouts=patient, **turns), cloud("second", cheap)]

    async with (
        scripted_provider(wire=case.wire(), tls=authority.server, stall_after_chunks=1) as server,
        make_room(entries, HEDGED) as room,
    ):
        holding = room.stub.StreamGenerateChat(room.request(model="held"), timeout=20)
        assert (await holding.read()).route.deployment == "holder"
        told = await room.answer()
        assert told.route.deployment == "second"
        assert [each.deployment for each in told.route.failed_attempts] == ["gigachat"]
        assert not told.route.failed_attempts[0].HasField("usage"), "it has not left us"
        assert server.counters.requests == 1
        holding.cancel()


async def test_what_waits_for_a_token_while_another_answers_costs_nothing(make_room, authority):
    case = BY_NAME["gigachat"]
    async with (
        scripted_provider(wire=case.wire(), tls=authority.server, token_ms=60_000) as server,
        make_room(lambda cheap, _: [entry("gigachat", server, authority), cloud("second", cheap)], HEDGED) as room,
    ):
        told = await room.answer()
        assert told.route.deployment == "second"
        assert not told.route.failed_attempts[0].HasField("usage"), "it has not left us"
        assert server.counters.requests == 0


async def test_what_a_provider_has_no_word_for_is_answered_by_another_or_named(make_room, authority):
    case = BY_NAME["gigachat"]
    tools = [f'{{"type":"function","function":{{"name":"f{number}"}}}}' for number in range(2)]
    options = chat_pb2.GenerationOptions(tools_json=tools, tool_choice_json='"required"')
    async with scripted_provider(wire=case.wire(), tls=authority.server) as server:
        first = entry("gigachat", server, authority)
        async with make_room(lambda cheap, _: [first, cloud("second", cheap)]) as room:
            assert (await room.answer(options=options)).route.deployment == "second"
        async with make_room(lambda *_: [first]) as room:
            error = await room.failure(options=options)
    assert error_reason(error) == "PROVIDER_REFUSED"
    assert "no tool_choice of this kind" in error.details()


async def test_an_unknown_certificate_is_a_provider_that_is_away(make_room, authority, tmp_path_factory):
    other = private_authority(tmp_path_factory.mktemp("other"))
    case = BY_NAME["gigachat"]
    async with (
        scripted_provider(wire=case.wire(), tls=authority.server) as server,
        make_room(lambda *_: [entry("gigachat", server, other)]) as room,
    ):
        error = await room.failure()
        assert error_reason(error) == "PROVIDER_UNAVAILABLE"
        assert server.counters.tokens_issued == 0
