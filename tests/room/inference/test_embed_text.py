import grpc
import pytest

from llmmesh.inference.v1 import inference_pb2
from llmmesh.inference.v1.inference_pb2 import EmbedTextRequest, ScorePairsRequest
from llmmesh.inference.v1.inference_pb2_grpc import InferenceServiceStub
from meshkit.client import connect
from meshkit.errors import error_info, error_reason
from services.inference.app import inference
from services.inference.config import InferenceConfig


@pytest.fixture(scope="module")
async def room():
    """The room without chat models."""
    config = InferenceConfig(
        listen="127.0.0.1:0", metrics_listen="", models={}, embedding_max_texts=3, embedding_max_characters=100
    )
    async with inference(config) as port, connect(f"127.0.0.1:{port}", InferenceServiceStub) as stub:
        yield stub


async def refusal(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_each_text_gets_a_vector(room):
    embedded = await room.EmbedText(EmbedTextRequest(texts=["one", "two"]))
    assert [len(each.values) for each in embedded.embeddings] == [384, 384]
    assert embedded.model == "multilingual-e5-small"
    assert embedded.input_tokens > 2


async def test_the_model_may_be_named(room):
    embedded = await room.EmbedText(EmbedTextRequest(model="multilingual-e5-small", texts=["one"]))
    assert len(embedded.embeddings) == 1


async def test_without_a_purpose_a_text_is_a_question(room):
    plain, query, document = [
        (await room.EmbedText(EmbedTextRequest(texts=["one"], purpose=purpose))).embeddings[0]
        for purpose in (
            inference_pb2.EMBEDDING_PURPOSE_UNSPECIFIED,
            inference_pb2.EMBEDDING_PURPOSE_QUERY,
            inference_pb2.EMBEDDING_PURPOSE_DOCUMENT,
        )
    ]
    assert plain == query != document


@pytest.mark.parametrize(
    ("texts", "field"),
    [
        ([], "texts"),
        (["a"] * 4, "texts"),
        (["a", ""], "texts[1]"),
        (["x" * 101], "texts[0]"),
    ],
)
async def test_lists_and_texts_out_of_bounds_are_refused_by_name(room, texts, field):
    error = await refusal(room.EmbedText(EmbedTextRequest(texts=texts)))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error_info(error).metadata["field"] == field


async def test_an_unknown_embedding_model_is_named(room):
    error = await refusal(room.EmbedText(EmbedTextRequest(model="ada", texts=["one"])))
    assert error_reason(error) == "MODEL_NOT_FOUND"
    assert error_info(error).metadata["model"] == "ada"


async def test_an_unknown_adapter_is_refused_by_name(room):
    error = await refusal(room.EmbedText(EmbedTextRequest(texts=["one"], adapter="of-tomorrow")))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error_info(error).metadata["field"] == "adapter"


async def test_without_chat_models_only_the_embedding_model_is_listed(room):
    listed = await room.ListModels(inference_pb2.ListModelsRequest())
    assert [model.name for model in listed.models] == ["multilingual-e5-small"]


async def test_tokens_come_as_bytes_for_each_depth_when_they_are_wanted(room):
    wanted = await room.EmbedText(EmbedTextRequest(texts=["the cat sleeps", "cats"], token_vectors=True))
    for embedding in wanted.embeddings:
        tokens = embedding.tokens
        assert (tokens.depths, tokens.dimensions, len(tokens.basis)) == (3, 64, 8)
        assert len(tokens.values) == len(tokens.rarities) * tokens.depths * tokens.dimensions > 0
    plain = await room.EmbedText(EmbedTextRequest(texts=["the cat sleeps", "cats"]))
    assert [list(each.values) for each in plain.embeddings] == [list(each.values) for each in wanted.embeddings]
    assert not any(each.HasField("tokens") for each in plain.embeddings)


async def test_pairs_are_scored_in_their_order(room):
    others = ["What is France's capital?", "How far away is the Moon?"]
    scored = await room.ScorePairs(ScorePairsRequest(text="What is the capital of France?", others=others))
    same, different = scored.log_odds
    assert same > 0 > different
    assert scored.scorer


@pytest.mark.parametrize(
    ("text", "others", "field"),
    [
        ("", ["a"], "text"),
        ("x" * 101, ["a"], "text"),
        ("a", [], "others"),
        ("a", ["a"] * 4, "others"),
        ("a", ["a", ""], "others[1]"),
        ("a", ["x" * 101], "others[0]"),
    ],
)
async def test_pairs_out_of_bounds_are_refused_by_name(room, text, others, field):
    error = await refusal(room.ScorePairs(ScorePairsRequest(text=text, others=others)))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error_info(error).metadata["field"] == field
