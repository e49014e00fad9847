"""What Yandex alone has: folders, answers told from the beginning each time, prompts kept unless forbidden."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import orjson
import pytest

from llmmesh.chat.v1 import chat_pb2
from services.router.providers.issuers import token_in
from services.router.providers.provider import FailureKind, ProviderFailure
from tests.support.provider_cases import BY_NAME, PUBLIC, Authority, Opened, Said, answer, opened, question

TOOL = '{"type":"function","function":{"name":"forecast","parameters":{"type":"object"}}}'


@pytest.fixture
async def yandex(authority: Authority) -> AsyncIterator[Opened]:
    async with opened(BY_NAME["yandex"], authority) as running:
        yield running


def lines(*texts: str, finish: str = "ALTERNATIVE_STATUS_FINAL") -> str:
    """A stream that tells these texts, one after the other."""
    told = []
    for number, text in enumerate(texts, 1):
        status = finish if number == len(texts) else "ALTERNATIVE_STATUS_PARTIAL"
        alternative = {"message": {"role": "assistant", "text": text}, "status": status}
        told.append(orjson.dumps({"result": {"alternatives": [alternative]}}).decode())
    return "\n".join(told) + "\n"


async def test_a_model_is_named_by_folder_name_and_branch(authority):
    async with opened(BY_NAME["yandex"], authority, branch="rc") as yandex:
        await answer(yandex.chat, question())
        assert yandex.sent["modelUri"] == "gpt://b1gfolder/model-of-theirs/rc"
        await yandex.embedder.embed(["fox"], PUBLIC)
        assert yandex.sent["modelUri"] == "emb://b1gfolder/model-of-theirs/rc"


@pytest.mark.parametrize("name", ["yandex", "yandex_openai", "yandex_metadata", "yandex_account"])
async def test_prompts_may_not_be_kept(authority, name):
    async with opened(BY_NAME[name], authority, headers={"x-data-logging-enabled": "true"}) as yandex:
        await answer(yandex.chat, question())
        assert yandex.headers["x-data-logging-enabled"] == "false"
        await yandex.embedder.embed(["fox"], PUBLIC)
        assert yandex.headers["x-data-logging-enabled"] == "false"


async def test_prompts_may_be_kept_where_only_public_data_goes(authority):
    async with opened(BY_NAME["yandex"], authority, log_prompts=True, data_classes=["public"]) as yandex:
        await answer(yandex.chat, question())
        assert "x-data-logging-enabled" not in yandex.headers


async def test_an_iam_token_goes_as_a_bearer(authority):
    async with opened(
        BY_NAME["yandex"], authority, auth="iam", headers={"x-folder-id": "env:CONTRACT_FOLDER"}
    ) as yandex:
        yandex.server.set(authorization="Bearer a2V5LWlkOnNlY3JldC1vZi1vdXJz")
        await answer(yandex.chat, question())
        assert yandex.headers["x-folder-id"] == "b1gfolder"


@pytest.mark.parametrize("key", ["no JSON", '{"id":"a","service_account_id":"b","private_key":"-----BEGIN"}', "[]"])
async def test_an_account_key_that_cannot_be_read_is_a_failure_that_gives_nothing_away(authority, key):
    spoilt = replace(BY_NAME["yandex_account"], environment=lambda: {"CONTRACT_ACCOUNT_KEY": key})
    async with opened(spoilt, authority) as yandex:
        with pytest.raises(ProviderFailure) as caught:
            await answer(yandex.chat, question())
        assert yandex.server.counters.tokens_issued == yandex.server.counters.requests == 0
    assert (caught.value.kind, str(caught.value)) == (
        FailureKind.CREDENTIAL,
        "the key of the service account cannot be read",
    )


async def test_a_token_that_ends_at_no_time_is_refused():
    assert token_in({"iamToken": "t", "expiresAt": "2026-11-22T10:00:00.123456789Z"}).expires_at == 1795341600.123456
    with pytest.raises(ProviderFailure):
        token_in({"iamToken": "t", "expiresAt": "tomorrow"})


async def test_options_take_the_shapes_it_wants(yandex):
    await answer(
        yandex.chat,
        question(temperature=1.7, max_output_tokens=50, seed=1, extra_json={"reasoning_effort": '"none"'}),
    )
    assert yandex.sent["completionOptions"] == {
        "stream": True,
        "temperature": 1.0,
        "maxTokens": "50",
        "reasoningOptions": {"mode": "DISABLED"},
    }


async def test_a_tool_may_be_required(yandex):
    said = await answer(yandex.chat, question(tools_json=[TOOL], tool_choice_json='"required"'))
    assert yandex.sent["toolChoice"] == {"mode": "REQUIRED"}
    assert len(said.calls) == 1


async def test_hidden_thoughts_are_counted_apart(yandex):
    yandex.server.set(reasoning="hm let me see")
    usage = (await answer(yandex.chat, question())).ended.usage
    assert (usage.input_tokens, usage.output_tokens, usage.reasoning_tokens) == (4, 9, 4)


async def test_an_answer_that_grows_is_told_in_pieces(yandex):
    yandex.server.set(verbatim=lines("Plat", "Platypus", "Platypus", "Platypuses lay eggs"))
    assert (await answer(yandex.chat, question())).text == "Platypuses lay eggs"


async def test_half_a_character_is_held_back_until_it_is_whole(yandex):
    yandex.server.set(verbatim=lines("при\ufffd", "прив\ufffd\ufffd", "привет"))
    assert (await answer(yandex.chat, question())).text == "привет"


async def test_an_answer_that_takes_back_what_it_said_is_broken(yandex):
    yandex.server.set(verbatim=lines("Whales are fish", "Whales are mammals"))
    said = Said()
    with pytest.raises(ProviderFailure) as caught:
        await answer(yandex.chat, question(), said)
    assert caught.value.kind is FailureKind.MALFORMED
    assert said.text == "Whales are fish"


async def test_an_answer_that_takes_back_what_it_said_may_be_corrected_by_what_differs(authority):
    async with opened(BY_NAME["yandex"], authority, corrections="append") as yandex:
        yandex.server.set(verbatim=lines("Whales are fish", "Whales are mammals", "Whales are mammals."))
        assert (await answer(yandex.chat, question())).text == "Whales are fishmammals."


@pytest.mark.parametrize("corrections", ["break", "append"])
async def test_an_answer_that_the_filter_replaces_midway_says_so_after_what_was_said(authority, corrections):
    async with opened(BY_NAME["yandex"], authority, corrections=corrections) as yandex:
        filtered = lines("To pick", "I cannot discuss this", finish="ALTERNATIVE_STATUS_CONTENT_FILTER")
        yandex.server.set(verbatim=filtered)
        said = await answer(yandex.chat, question())
    assert (said.text, said.ended.finish_reason) == ("To pick", chat_pb2.FINISH_REASON_CONTENT_FILTER)


async def test_an_unwrapped_answer_is_understood(yandex):
    wrapped = [orjson.loads(line)["result"] for line in lines("Hel", "Hello").splitlines()]
    yandex.server.set(verbatim="\n".join(orjson.dumps(result).decode() for result in wrapped))
    said = await answer(yandex.chat, question())
    assert (said.text, said.ended.finish_reason) == ("Hello", chat_pb2.FINISH_REASON_STOP)
