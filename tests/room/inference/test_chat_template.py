import os
import shutil
import subprocess
import sys

import pytest

from tests.support.inference_process import REPOSITORY

pytestmark = pytest.mark.timeout(400)

# In a process of its own: the libraries warn on import, and warnings are errors here.
ASKED = """
import asyncio
import sys

from services.inference.tokenizer import ChatTokenizer, load_tokenizer

folder, template = sys.argv[1:]
tokenizer = load_tokenizer(folder)
tokenizer.chat_template = template
tokenizer.save_pretrained(folder)
call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": {"city": "Kazan"}}}
asyncio.run(ChatTokenizer(folder, max_waiting=1).encode([{"role": "assistant", "content": "", "tool_calls": [call]}]))
"""


def test_a_template_that_cannot_write_an_earlier_tool_call_refuses_the_messages(tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    template = "{{ 'called with ' + messages[0].tool_calls[0].function.arguments }}"
    asked = subprocess.run(
        [sys.executable, "-c", ASKED, str(folder), template],
        cwd=REPOSITORY,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "FieldInvalid: messages: do not suit the model's chat template" in asked.stderr
