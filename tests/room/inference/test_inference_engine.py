import asyncio
import json
import re

import grpc
import pytest
from google.rpc import error_details_pb2

from llmmesh.chat.v1 import chat_pb2
from llmmesh.inference.v1 import inference_pb2
from llmmesh.inference.v1.inference_pb2 import MODEL_STATE_FAILED, MODEL_STATE_READY, MODEL_STATE_WARMING
from meshkit.errors import error_info, error_reason, rpc_status
from tests.room.inference.conftest import prompt

pytestmark = pytest.mark.timeout(400)

ENDLESS = {"max_output_tokens": 1900, "extra_json": {"ignore_eos": "true"}}


def ask(room, text, tenant="", timeout=60, **options):
    request = inference_pb2.StreamGenerateChatRequest(prompt=prompt(text, **options))
    metadata = (("x-llmmesh-tenant", tenant),) if tenant else None
    return room.stub.StreamGenerateChat(request, timeout=timeout, metadata=metadata)


async def answer(call):
    """Texts of the deltas, and the one ending after them."""
    steps = [step async for step in call]
    assert [step.WhichOneof("event") for step in steps] == ["delta"] * (len(steps) - 1) + ["finished"]
    return [step.delta.text for step in steps[:-1]], steps[-1].finished


async def refusal(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await answer(call)
    return caught.value


def retry_seconds(error):
    info = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(info) for detail in rpc_status(error).details)
    return info.retry_delay.seconds


def test_models_are_listed_by_name_while_they_load(early):
    states = {model.name: model.state for model in early.models.models}
    assert list(states) == ["damaged", "missing", "multilingual-e5-small", "tiny"]
    assert states["multilingual-e5-small"] == MODEL_STATE_READY
    assert states["tiny"] == MODEL_STATE_WARMING


def test_texts_are_embedded_while_chat_models_load(early):
    assert len(early.embedding.embeddings[0].values) == 384


def test_a_question_to_a_loading_model_is_told_when_to_come_back(early):
    assert error_reason(early.refusal) == "MODEL_WARMING"
    assert retry_seconds(early.refusal) >= 1


async def test_a_loaded_model_says_how_much_it_reads(tiny):
    model = await tiny.model("tiny")
    assert (model.state, model.context_tokens, model.embeds) == (MODEL_STATE_READY, 2048, False)


@pytest.mark.parametrize(("name", "why"), [("missing", "var/models/missing"), ("damaged", "no tokenizer in")])
async def test_a_model_that_cannot_be_loaded_says_why_and_harms_no_other(tiny, name, why):
    model = await tiny.model(name)
    assert model.state == MODEL_STATE_FAILED
    assert why in model.detail


async def test_the_embedding_model_says_how_long_its_vectors_are(tiny):
    model = await tiny.model("multilingual-e5-small")
    assert (model.embeds, model.dimensions, model.context_tokens) == (True, 384, 512)


async def test_nothing_else_is_listed(tiny):
    listed = await tiny.stub.ListModels(inference_pb2.ListModelsRequest())
    assert len(listed.models) == 4


async def test_an_answer_ends_with_exact_counts(tiny):
    texts, finished = await answer(ask(tiny, "hello", temperature=0, max_output_tokens=20))
    counted = await tiny.stub.CountTokens(inference_pb2.CountTokensRequest(prompt=prompt("hello")))
    assert texts
    assert finished.finish_reason == chat_pb2.FINISH_REASON_LENGTH
    assert finished.usage.output_tokens == 20
    assert finished.usage.input_tokens + finished.usage.cached_input_tokens == counted.token_count
    assert not finished.usage.estimated


async def test_tokens_made_close_together_share_a_message(tiny):
    texts, finished = await answer(ask(tiny, "hello", temperature=0, max_output_tokens=100))
    assert len(texts) < finished.usage.output_tokens / 2


async def test_a_second_answer_is_written_while_the_first_goes_on(tiny):
    long = ask(tiny, "go on", **ENDLESS)
    await long.read()
    await answer(ask(tiny, "hello", max_output_tokens=5))
    assert not long.done()
    long.cancel()


async def test_hanging_up_makes_room_for_the_next_in_line(tiny):
    first, second = ask(tiny, "one", **ENDLESS), ask(tiny, "two", **ENDLESS)
    await asyncio.gather(first.read(), second.read())
    third = asyncio.create_task(answer(ask(tiny, "three", max_output_tokens=5)))
    first.cancel()
    await third
    assert not second.done()
    second.cancel()
    await tiny.idle("tiny")


async def test_a_deadline_stops_the_engine_too(tiny):
    error = await refusal(ask(tiny, "go on", timeout=1.0, **ENDLESS))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await tiny.idle("tiny")


async def test_more_questions_than_may_wait_are_refused(tiny):
    calls = [ask(tiny, f"question {number}", **ENDLESS) for number in range(4)]
    # Two are being written and one waits for its turn, so that only the fourth can fail.
    reading = [asyncio.create_task(call.read()) for call in calls]
    ended, _ = await asyncio.wait(reading, return_when=asyncio.FIRST_EXCEPTION)
    refused = [error for task in ended if (error := task.exception())]
    for call in calls:
        call.cancel()
    await asyncio.wait(reading)
    assert [error_reason(error) for error in refused] == ["RATE_LIMITED"]


async def test_without_chance_the_same_question_gets_the_same_answer(tiny):
    one, other = [await answer(ask(tiny, "hello", temperature=0, max_output_tokens=30)) for _ in range(2)]
    assert "".join(one[0]) == "".join(other[0])


async def test_a_seed_repeats_chance(tiny):
    options = {"temperature": 1, "max_output_tokens": 30}
    one, again, other = [await answer(ask(tiny, "hello", seed=seed, **options)) for seed in (1, 1, 2)]
    assert "".join(one[0]) == "".join(again[0]) != "".join(other[0])


async def test_a_stop_text_ends_the_answer_before_it(tiny):
    options = {"temperature": 1, "seed": 1}
    whole = "".join((await answer(ask(tiny, "hello", max_output_tokens=30, **options)))[0])
    stop = whole[40:50]
    texts, finished = await answer(ask(tiny, "hello", max_output_tokens=30, stop=[stop], **options))
    assert "".join(texts) == whole[: whole.index(stop)]
    assert finished.finish_reason == chat_pb2.FINISH_REASON_STOP


async def test_an_answer_follows_a_json_schema(tiny):
    schema = {"type": "object", "properties": {"a": {"enum": ["x", "y"]}}, "required": ["a"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": {**schema, "additionalProperties": False}}}
    call = ask(tiny, "hello", max_output_tokens=200, temperature=0, response_format_json=json.dumps(wanted))
    assert json.loads("".join((await answer(call))[0]))["a"] in ("x", "y")


async def test_a_schema_the_engine_does_not_understand_is_refused_by_name(tiny):
    wanted = {"type": "json_schema", "json_schema": {"schema": {"type": "nonsense"}}}
    error = await refusal(ask(tiny, "hello", response_format_json=json.dumps(wanted)))
    assert dict(error_info(error).metadata) == {"field": "response_format"}


async def test_a_conversation_longer_than_the_context_is_refused(tiny):
    error = await refusal(ask(tiny, "word " * 3000))
    assert error_reason(error) == "CONTEXT_TOO_LONG"
    assert error_info(error).metadata["context_tokens"] == "2048"


async def test_more_output_than_the_context_has_room_for_is_refused(tiny):
    assert error_reason(await refusal(ask(tiny, "hello", max_output_tokens=2048))) == "CONTEXT_TOO_LONG"


async def test_an_answer_that_would_have_to_be_longer_than_it_may_is_refused_by_name(tiny):
    error = await refusal(ask(tiny, "hello", max_output_tokens=5, extra_json={"min_tokens": "6"}))
    assert dict(error_info(error).metadata) == {"field": "min_tokens"}


async def test_a_special_token_in_a_message_is_text_like_any_other(tiny):
    counts = []
    for text in ("", "< |im_end|>", "<|im_end|>"):
        counted = await tiny.stub.CountTokens(inference_pb2.CountTokensRequest(prompt=prompt(text)))
        counts.append(counted.token_count)
    nothing, apart, spelled = counts
    assert spelled == apart > nothing + 1


async def test_an_unknown_model_is_named(tiny):
    error = await refusal(ask(tiny, "hello", model="no-such-model"))
    assert error_reason(error) == "MODEL_NOT_FOUND"
    assert error_info(error).metadata["model"] == "no-such-model"


async def complete(room, text="Is it safe or unsafe? It is ", **options):
    asked = {"model": "tiny", "text": text, "max_output_tokens": 20, **options}
    return await room.stub.CompleteText(inference_pb2.CompleteTextRequest(**asked), timeout=60)


async def test_a_text_is_continued_as_it_stands_and_as_its_regex_says(tiny):
    regex = r"safe|unsafe\n(S[1-9]|S1[0-4])(,(S[1-9]|S1[0-4])){0,3}"
    one, again = [await complete(tiny, regex=regex, first_tokens=20) for _ in range(2)]
    assert re.fullmatch(regex, one.text)
    assert one.text == again.text
    assert one.usage.output_tokens > 0


async def test_the_likeliest_first_tokens_are_told_among_those_the_regex_admits(tiny):
    told = (await complete(tiny, regex="safe|unsafe", first_tokens=20)).first_tokens
    assert {"safe", "unsafe"} & {each.token for each in told}
    assert all("safe".startswith(each.token) or "unsafe".startswith(each.token) for each in told)
    assert sum(each.probability for each in told) == pytest.approx(1, abs=1e-3)
    assert [each.probability for each in told] == sorted((each.probability for each in told), reverse=True)
    assert not (await complete(tiny)).first_tokens


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"regex": "("}, "regex"),
        ({"regex": "a" * 1001}, "regex"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"first_tokens": 21}, "first_tokens"),
        ({"text": ""}, "text"),
    ],
)
async def test_a_text_that_cannot_be_continued_so_is_refused_by_field(tiny, wrong, field):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await complete(tiny, **wrong)
    assert dict(error_info(caught.value).metadata) == {"field": field}


async def test_a_tenant_reads_again_only_what_it_wrote_itself(tiny):
    text = "a prefix long enough to fill several blocks of the cache " * 20
    usages = [
        (await answer(ask(tiny, text, tenant=tenant, max_output_tokens=1)))[1].usage
        for tenant in ("acme", "acme", "umbrella")
    ]
    assert [usage.cached_input_tokens > 0 for usage in usages] == [False, True, False]
    assert len({usage.input_tokens + usage.cached_input_tokens for usage in usages}) == 1


async def test_a_dead_engine_is_loaded_again_while_the_room_goes_on(tiny):
    steps = aiter(ask(tiny, "go on", **ENDLESS))
    await anext(steps)
    tiny.engine_processes()[0].kill()
    assert error_reason(await refusal(steps)) == "PROVIDER_STREAM_BROKEN"
    embedded = await tiny.stub.EmbedText(inference_pb2.EmbedTextRequest(texts=["still here"]))
    assert len(embedded.embeddings) == 1
    assert error_reason(await refusal(ask(tiny, "hello"))) == "MODEL_WARMING"
    await tiny.ready("tiny")
    await answer(ask(tiny, "hello", max_output_tokens=5))
