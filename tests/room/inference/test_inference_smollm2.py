import subprocess
import sys

import psutil
import pytest

from llmmesh.inference.v1 import inference_pb2
from tests.room.inference.conftest import prompt
from tests.support.inference_process import REPOSITORY, inference_process

pytestmark = pytest.mark.timeout(600)

NAME = "smollm2-135m"


@pytest.fixture(scope="module")
def converted():
    """The folder of models, the default one converted when it is not there yet."""
    convert = [sys.executable, "-m", "services.inference.models", "--into", "var/models"]
    subprocess.run(convert, cwd=REPOSITORY, check=True)
    return "var/models"


@pytest.fixture(scope="module")
async def smollm2(converted, tmp_path_factory):
    """The room with the default model."""
    log = tmp_path_factory.mktemp("log") / "smollm2.log"
    async with inference_process(log, f"{NAME}={converted}/{NAME}") as room:
        await room.ready(NAME)
        yield room


async def test_the_capital_of_france_is_paris(smollm2):
    question = prompt("What is the capital of France?", model=NAME, temperature=0, max_output_tokens=20)
    call = smollm2.stub.StreamGenerateChat(inference_pb2.StreamGenerateChatRequest(prompt=question), timeout=120)
    assert "Paris" in "".join([step.delta.text async for step in call])


def test_a_killed_room_leaves_no_engine_behind(smollm2):
    processes = smollm2.engine_processes()
    assert processes
    smollm2.kill()
    assert psutil.wait_procs(processes, timeout=20)[1] == []
