import pytest
from google.rpc import error_details_pb2

from llmmesh.inference.v1 import inference_pb2
from llmmesh.inference.v1.inference_pb2 import MODEL_STATE_FAILED, MODEL_STATE_READY, MODEL_STATE_WARMING
from meshkit.errors import error_reason, rpc_status

pytestmark = pytest.mark.timeout(400)


def retry_seconds(error):
    info = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(info) for detail in rpc_status(error).details)
    return info.retry_delay.seconds


def test_models_are_listed_by_name_while_they_load(early):
    states = {model.name: model.state for model in early.models.models}
    assert list(states) == ["missing", "multilingual-e5-small", "tiny"]
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


async def test_a_model_that_cannot_be_loaded_says_why_and_harms_no_other(tiny):
    model = await tiny.model("missing")
    assert model.state == MODEL_STATE_FAILED
    assert "var/models/missing" in model.detail


async def test_the_embedding_model_says_how_long_its_vectors_are(tiny):
    model = await tiny.model("multilingual-e5-small")
    assert (model.embeds, model.dimensions, model.context_tokens) == (True, 384, 512)


async def test_nothing_else_is_listed(tiny):
    listed = await tiny.stub.ListModels(inference_pb2.ListModelsRequest())
    assert len(listed.models) == 3
