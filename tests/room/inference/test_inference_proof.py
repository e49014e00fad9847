import subprocess
import sys

import pytest

from tests.support.inference_process import REPOSITORY

pytestmark = pytest.mark.timeout(400)

# In a process of its own: the engine's libraries warn on import, and warnings are errors here.
PROOF = """
import asyncio
from types import SimpleNamespace

from services.inference.engine import Engine
from services.inference.keeper import prove

config = SimpleNamespace(max_model_len=16, get_diff_sampling_param=lambda: {"repetition_penalty": 0.0})
asyncio.run(prove(Engine(SimpleNamespace(model_config=config))))
"""


def test_a_model_whose_makers_advise_what_the_engine_refuses_is_a_failed_load():
    proof = subprocess.run([sys.executable, "-c", PROOF], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert "LoadFailed: the engine loaded but did not answer" in proof.stderr
    assert "repetition_penalty" in proof.stderr
