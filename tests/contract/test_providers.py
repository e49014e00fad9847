"""What every HTTP adapter promises; each runs against a server that speaks its provider's wire format."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import orjson
import pytest

from llmmesh.chat.v1 import chat_pb2
from meshkit.errors import EgressRefused
from services.router.deltas import append
from services.router.pacing import TimedStream
from services.router.providers.provider import FailureKind, Health, ProviderFailure
from tests.support.provider_cases import (
    BY_NAME,
    CASES,
    FAITHFUL,
    PUBLIC,
    SECRET,
    SENSITIVE,
    Authority,
    Case,
    Opened,
    Said,
    agree,
    answer,
    conversation,
    opened,
    private_authority,
    question,
)

TOOL = orjson.dumps(
    {
        "type": "function",
        "function": {
            "name": "forecast",
            "description": "Weather of the days to come",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
).decode()
SCHEMA = {"type": "object", "properties": {"colour": {"type": "string"}}, "required": ["colour"]}
FORMAT = orjson.dumps(
    {"type": "json_schema", "json_schema": {"name": "fox", "strict": True, "schema": SCHEMA}}
).decode()


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture
async def cloud(case: Case, authority: Authority) -> AsyncIterator[Opened]:
    async with opened(case, authority) as running:
        yield running


async def failure(cloud: Opened, prompt: chat_pb2.ChatPrompt | None = None, said: Said | None = None):
    """Ask, and expect to fail."""
    with pytest.raises(ProviderFailure) as caught:
        await answer(cloud.chat, prompt or question(), said)
    return caught.value


def total(usage: chat_pb2.TokenUsage) -> int:
    return sum(
        (
            usage.input_tokens,
            usage.cached_input_tokens,
            usage.cache_write_tokens,
            usage.output_tokens,
            usage.reasoning_tokens,
        )
    )


async def test_an_answer_comes_in_pieces_and_ends_once(cloud):
    cloud.server.set(tokens_per_second=100)
    said = await answer(cloud.chat, question())
    assert said.text == cloud.server.script.reply
    assert said.pieces > 3
    assert said.ended.finish_reason == chat_pb2.FINISH_REASON_STOP


async def test_the_model_is_called_by_the_providers_name_for_it(cloud):
    await answer(cloud.chat, question())
    assert cloud.case.model_name(cloud.sent) == "model-of-theirs"


async def test_the_token_limit_ends_an_answer(cloud):
    said = await answer(cloud.chat, question(max_output_tokens=2))
    assert (said.text, said.ended.finish_reason) == ("The quick", chat_pb2.FINISH_REASON_LENGTH)


async def test_a_filtered_answer_says_so(cloud):
    cloud.server.set(finish_reason="content_filter")
    assert (await answer(cloud.chat, question())).ended.finish_reason == chat_pb2.FINISH_REASON_CONTENT_FILTER


async def test_a_temperature_of_nothing_is_taken(cloud):
    assert (await answer(cloud.chat, question(temperature=0))).text == cloud.server.script.reply


async def test_instructions_may_stand_anywhere(cloud):
    prompt = conversation(
        (chat_pb2.ROLE_SYSTEM, "Be brief."),
        (chat_pb2.ROLE_USER, "Hello"),
        (chat_pb2.ROLE_ASSISTANT, "Hi"),
        (chat_pb2.ROLE_DEVELOPER, "Be polite."),
        (chat_pb2.ROLE_USER, "Tell me"),
    )
    assert (await answer(cloud.chat, prompt)).text == cloud.server.script.reply
    sent = orjson.dumps(cloud.sent).decode()
    assert "Be brief." in sent
    assert "Be polite." in sent


async def test_a_stop_text_ends_an_answer_or_is_left_to_the_provider(cloud):
    said = await answer(cloud.chat, question(stop=["fox jumps"]))
    assert said.ended.finish_reason == chat_pb2.FINISH_REASON_STOP
    if "stop" not in cloud.sent:
        assert said.text == "The quick brown "


async def test_a_tool_is_called_and_its_result_understood(cloud):
    said = await answer(cloud.chat, question(tools_json=[TOOL], tool_choice_json='"auto"'))
    (call,) = said.calls
    assert (call.name, orjson.loads(call.arguments)) == ("forecast", {"city": "Paris", "days": 3})
    assert call.id
    assert said.ended.finish_reason == chat_pb2.FINISH_REASON_TOOL_CALLS
    prompt = question(tools_json=[TOOL])
    prompt.messages.add(role=chat_pb2.ROLE_ASSISTANT, tool_calls=[call])
    prompt.messages.add(
        role=chat_pb2.ROLE_TOOL, tool_call_id=call.id, content=[chat_pb2.ContentPart(text="sunny, no JSON")]
    )
    assert (await answer(cloud.chat, prompt)).text == cloud.server.script.reply
    assert "sunny, no JSON" in orjson.dumps(cloud.sent).decode()


async def test_a_tool_may_be_demanded_by_name_or_forbidden(cloud):
    named = '{"type":"function","function":{"name":"forecast"}}'
    demanded = await answer(cloud.chat, question(tools_json=[TOOL, TOOL], tool_choice_json=named))
    assert [call.name for call in demanded.calls] == ["forecast"]
    forbidden = await answer(cloud.chat, question(tools_json=[TOOL], tool_choice_json='"none"'))
    assert forbidden.calls == []


async def test_arguments_that_are_no_json_are_handed_on_as_they_are(cloud):
    cloud.server.set(tool_arguments='{"city": Paris')
    (call,) = (await answer(cloud.chat, question(tools_json=[TOOL]))).calls
    assert call.arguments == '{"city": Paris'
    prompt = question(tools_json=[TOOL])
    prompt.messages.add(role=chat_pb2.ROLE_ASSISTANT, tool_calls=[call])
    prompt.messages.add(role=chat_pb2.ROLE_TOOL, tool_call_id=call.id, content=[chat_pb2.ContentPart(text="{}")])
    assert (await answer(cloud.chat, prompt)).text == cloud.server.script.reply


async def test_a_json_schema_reaches_the_provider_in_its_own_shape(cloud):
    await answer(cloud.chat, question(response_format_json=FORMAT))
    assert cloud.case.schema(cloud.sent) == SCHEMA


async def test_a_wish_for_any_json_is_taken(cloud):
    assert (await answer(cloud.chat, question(response_format_json='{"type":"json_object"}'))).text
    assert (await answer(cloud.chat, question(response_format_json='{"type":"text"}'))).text


async def test_the_figures_fall_into_buckets_whose_sum_is_the_total(cloud):
    cloud.server.set(cached_tokens=3)
    usage = (await answer(cloud.chat, question())).ended.usage
    cached = 3 if cloud.case.tells_cached else 0
    assert (usage.input_tokens, usage.cached_input_tokens, usage.output_tokens) == (4 - cached, cached, 9)
    assert total(usage) == 13
    assert not usage.estimated


@pytest.mark.parametrize("case", FAITHFUL, ids=str)
async def test_missing_figures_are_told_as_missing(cloud):
    cloud.server.set(omit_usage=True)
    assert (await answer(cloud.chat, question())).ended.usage is None


async def test_contradictory_figures_leave_no_bucket_negative_and_lose_nothing(cloud):
    cloud.server.set(contradict_usage=True)
    usage = (await answer(cloud.chat, question())).ended.usage
    parts = [value for _, value in usage.ListFields()]
    assert min(parts) >= 0
    assert usage.output_tokens + usage.reasoning_tokens == 9
    assert total(usage) >= 9


async def test_texts_are_embedded_in_their_order(cloud):
    texts = [f"fox number {number}" for number in range(23)]
    whole = await cloud.embedder.embed(texts, PUBLIC)
    assert [len(vector) for vector in whole.vectors] == [8] * 23
    assert whole.usage.input_tokens == total(whole.usage) == 69
    last = await cloud.embedder.embed(texts[-1:], PUBLIC)
    assert last.vectors[0] == pytest.approx(whole.vectors[-1])


async def test_a_failing_embedding_is_one_failure(cloud):
    cloud.server.set(fail_next=-1, fail_status=503)
    with pytest.raises(ProviderFailure) as caught:
        await cloud.embedder.embed([f"fox number {number}" for number in range(23)], PUBLIC)
    assert caught.value.kind is FailureKind.UNAVAILABLE


STATUSES = {
    400: FailureKind.REFUSED,
    403: FailureKind.CREDENTIAL,
    404: FailureKind.NOT_FOUND,
    422: FailureKind.REFUSED,
    429: FailureKind.THROTTLED,
    500: FailureKind.UNAVAILABLE,
    502: FailureKind.UNAVAILABLE,
    503: FailureKind.UNAVAILABLE,
    504: FailureKind.TIMEOUT,
}


@pytest.mark.parametrize("status", STATUSES)
async def test_an_error_is_named_by_its_status_and_gives_nothing_away(cloud, status):
    cloud.server.set(
        fail_next=-1, fail_status=status, retry_after="7", error_message=f"You said 'my salary' with key {SECRET}"
    )
    failed = await failure(cloud, question("Tell me about my salary"))
    assert (failed.kind, failed.status) == (STATUSES[status], str(status))
    assert failed.retry_after_seconds == 7
    for told in (str(failed), failed.public):
        assert "salary" not in told
        assert SECRET not in told
    cloud.server.set(fail_next=0)
    assert (await answer(cloud.chat, question())).text, "the next request works"


async def test_a_prompt_that_does_not_fit_is_told_apart(cloud):
    cloud.server.set(too_long=True)
    assert (await failure(cloud)).kind is FailureKind.TOO_LONG


async def test_a_refused_credential_is_ours_to_mend(cloud):
    cloud.server.set(fail_next=-1, fail_status=401, error_message=f"Incorrect key: {SECRET}")
    failed = await failure(cloud)
    assert failed.kind is FailureKind.CREDENTIAL
    assert SECRET not in str(failed) + failed.public
    assert cloud.server.counters.failed == (2 if cloud.case.renews else 1)


async def test_a_web_page_is_no_answer(cloud):
    cloud.server.set(html=True)
    assert agree(cloud.case, (await failure(cloud)).kind, FailureKind.MALFORMED)
    with pytest.raises(ProviderFailure) as caught:
        await cloud.embedder.embed(["fox"], PUBLIC)
    assert agree(cloud.case, caught.value.kind, FailureKind.MALFORMED)


BREAKS = {
    "cut_after_chunks": FailureKind.UNAVAILABLE,
    "malformed_chunk": FailureKind.MALFORMED,
    "error_chunk": FailureKind.UNAVAILABLE,
}


@pytest.mark.parametrize("knob", BREAKS)
async def test_a_stream_that_breaks_is_a_failure_after_what_it_said(cloud, knob):
    cloud.server.set(**{knob: 3, "error_message": f"secret {SECRET}"})
    said = Said()
    failed = await failure(cloud, said=said)
    assert agree(cloud.case, failed.kind, BREAKS[knob])
    assert said.text == "The quick brown"
    assert SECRET not in str(failed) + failed.public


async def test_a_stream_that_ends_too_early_is_a_failure(cloud):
    cloud.server.set(verbatim=" \n\n")
    assert agree(cloud.case, (await failure(cloud)).kind, FailureKind.UNAVAILABLE)


async def test_a_stream_that_falls_silent_is_a_failure_and_its_connection_is_closed(cloud):
    cloud.server.set(stall_after_chunks=2)
    stream = TimedStream(cloud.chat.stream_chat(question(), PUBLIC), cloud.deployment.timeouts)
    said = await stream.first()
    while said.text != "The quick":
        append(said, await stream.next())
    with pytest.raises(ProviderFailure) as caught:
        await stream.next()
    assert caught.value.kind is FailureKind.TIMEOUT
    await stream.aclose()
    await cloud.server.until(lambda now: now.open_streams == 0 and now.open_connections == 0)


async def test_characters_cut_in_half_are_put_together(cloud):
    cloud.server.set(reply="Съешь ещё этих 🥐 мягких 🦊 булок", piece_bytes=1)
    assert (await answer(cloud.chat, question())).text == "Съешь ещё этих 🥐 мягких 🦊 булок"


async def test_closing_the_answer_closes_the_connection(cloud):
    cloud.server.set(stall_after_chunks=2)
    async with aclosing(cloud.chat.stream_chat(question(), PUBLIC)) as events:
        await anext(events)
    await cloud.server.until(lambda now: now.aborted_streams == 1 and now.open_connections == 0)


async def test_cancelling_before_the_first_token_closes_the_connection(cloud):
    cloud.server.set(stall_after_chunks=0)
    asking = asyncio.create_task(answer(cloud.chat, question()))
    await cloud.server.until(lambda now: now.open_streams == 1)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await cloud.server.until(lambda now: now.aborted_streams == 1 and now.open_connections == 0)


async def test_a_server_that_accepts_and_never_answers_is_left_in_time(cloud):
    cloud.server.set(headers_ms=60_000)
    stream = TimedStream(cloud.chat.stream_chat(question(), PUBLIC), cloud.deployment.timeouts)
    asking = asyncio.create_task(stream.first())
    await cloud.server.until(lambda now: now.requests == 1)
    with pytest.raises(ProviderFailure) as caught:
        await asking
    assert caught.value.kind is FailureKind.TIMEOUT
    await stream.aclose()
    await cloud.server.until(lambda now: now.open_connections == 0)


UNREACHABLE = {"nobody listens": "127.0.0.1:1", "no such name": "llmmesh.invalid"}


@pytest.mark.parametrize("why", UNREACHABLE)
async def test_a_server_that_cannot_be_reached_is_unavailable(case, authority, why):
    async with opened(case, authority, base_url=f"https://{UNREACHABLE[why]}/v1") as cloud:
        failed = await failure(cloud)
    assert failed.kind is FailureKind.UNAVAILABLE


@pytest.mark.parametrize("case", FAITHFUL, ids=str)
async def test_a_certificate_of_an_unknown_authority_is_refused(case, authority, tmp_path: Path):
    other = private_authority(tmp_path)
    trusting = {**vars(case), "tls": True}
    async with opened(Case(**trusting), authority, ca_file=other.pem) as cloud:
        failed = await failure(cloud)
        assert failed.kind is FailureKind.UNAVAILABLE
        assert "Certificate" in str(failed)
        assert cloud.server.counters.requests == 0


async def test_it_is_said_to_be_ready(cloud):
    assert (await cloud.chat.condition()).health is Health.READY


RENEWING = [case for case in CASES if case.renews]


@pytest.mark.parametrize("case", RENEWING, ids=str)
async def test_a_token_that_ends_between_two_requests_is_replaced_once(cloud):
    await answer(cloud.chat, question())
    cloud.server.token = "revoked"
    assert (await answer(cloud.chat, question())).text == cloud.server.script.reply
    assert cloud.server.counters.tokens_issued == 2


LISTED = [BY_NAME[name] for name in ("openai", "cloudru", "gigachat", "gigachat_v2")]


@pytest.mark.parametrize("case", LISTED, ids=str)
async def test_it_is_asked_how_it_is_where_the_routes_say_how(case, authority):
    async with opened(case, authority, health_path="/models") as cloud:
        assert (await cloud.chat.condition()).health is Health.READY
        assert cloud.server.requests[-1].path.endswith("/v1/models")
        cloud.server.set(fail_next=-1, fail_status=503, error_message="secret words")
        told = await cloud.chat.condition()
        assert (told.health, told.detail) == (Health.UNAVAILABLE, "asked how it is, it answered 503")
        cloud.server.set(fail_next=0, headers_ms=60_000)
        told = await cloud.chat.condition()
        assert (told.health, told.detail) == (Health.UNAVAILABLE, "asked how it is, it kept silent")


async def test_connections_are_kept_for_the_next_request(cloud):
    for _ in range(3):
        await answer(cloud.chat, question())
    counters = cloud.server.counters
    assert counters.connections == 1 + counters.tokens_issued


async def test_a_token_is_asked_for_once_however_many_need_it(cloud):
    cloud.server.set(token_ms=50)
    said: list[Any] = await asyncio.gather(*(answer(cloud.chat, question()) for _ in range(8)))
    assert {each.text for each in said} == {cloud.server.script.reply}
    assert cloud.server.counters.tokens_issued == (1 if cloud.case.renews else 0)


async def test_what_may_not_go_there_is_refused_before_anything_is_sent(cloud, authority):
    async with opened(cloud.case, authority, data_classes=["public"]) as narrow:
        with pytest.raises(EgressRefused) as caught:
            await anext(narrow.chat.stream_chat(question(), SENSITIVE))
        assert caught.value.metadata["destination"] == narrow.deployment.name
        with pytest.raises(EgressRefused):
            await narrow.embedder.embed([f"fox number {number}" for number in range(23)], SENSITIVE)
        assert narrow.server.counters.requests == narrow.server.counters.tokens_issued == 0
