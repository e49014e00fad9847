"""Real engines, one at a time: that of a tiny random model serves a whole module."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import grpc
import pytest

from llmmesh.chat.v1 import chat_pb2
from llmmesh.inference.v1 import inference_pb2
from tests.support.inference_process import REPOSITORY, InferenceProcess, inference_process


def prompt(text: str, model: str = "tiny", **options: object) -> chat_pb2.ChatPrompt:
    """One question of a user."""
    said = chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content=[chat_pb2.ContentPart(text=text)])
    return chat_pb2.ChatPrompt(model=model, messages=[said], options=chat_pb2.GenerationOptions(**options))


@dataclass
class Early:
    """What the room said before any model was loaded."""

    models: inference_pb2.ListModelsResponse
    embedding: inference_pb2.EmbedTextResponse
    refusal: grpc.aio.AioRpcError


async def look_early(room: InferenceProcess) -> Early:
    """Ask at once."""
    models = await room.stub.ListModels(inference_pb2.ListModelsRequest())
    embedding = await room.stub.EmbedText(inference_pb2.EmbedTextRequest(texts=["hello"]))
    call = room.stub.StreamGenerateChat(inference_pb2.StreamGenerateChatRequest(prompt=prompt("hello")))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call.read()
    return Early(models, embedding, refused.value)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    # In a process of its own: the libraries warn on import, and warnings are errors here.
    subprocess.run([sys.executable, "-m", "tests.support.tiny_model", str(folder)], cwd=REPOSITORY, check=True)
    return folder


@pytest.fixture(scope="session")
def damaged_folder(tmp_path_factory):
    """A model whose tokenizer's file is cut off; what reads it raises nothing more exact than Exception."""
    folder = tmp_path_factory.mktemp("models") / "damaged"
    folder.mkdir()
    settings = '{"tokenizer_class": "TokenizersBackend", "added_tokens_decoder": {}}'
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "tokenizer_config.json").write_text(settings)
    (folder / "tokenizer.json").write_text('{"version": "1.0"')
    return folder


@pytest.fixture(scope="module")
async def started(tiny_folder, damaged_folder, tmp_path_factory):
    """The room with its tiny model loaded, and what it said before."""
    log = tmp_path_factory.mktemp("log") / "inference.log"
    settings = {"MAX_RUNNING": "2", "MAX_WAITING": "1", "COALESCE_SECONDS": "0.1", "CPU_KV_GIB": "0.25"}
    models = f"missing=var/models/missing,damaged={damaged_folder},tiny={tiny_folder}"
    async with inference_process(log, models, **settings) as room:
        early = await look_early(room)
        await room.ready("tiny")
        yield room, early
        assert await room.stop() == 0


@pytest.fixture(scope="module")
def tiny(started):
    """The room with a tiny model that writes two answers at a time and lets one more wait."""
    return started[0]


@pytest.fixture(scope="module")
def early(started):
    return started[1]
