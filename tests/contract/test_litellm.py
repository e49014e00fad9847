"""LiteLLM is there for who configures it, and not at all for who does not."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from llmmesh.chat.v1 import chat_pb2
from meshkit.egress import Cargo, DataClass, Residency
from services.router.deployment import Deployment
from services.router.endpoints import AnyDeployment
from services.router.providers.provider import ProviderFailure

ENTRY = {
    "name": "d",
    "adapter": "litellm",
    "provider": "p",
    "model": "anthropic/claude-opus-5",
    "serves": "m",
    "context_tokens": 100,
    "region": "global",
}
CARGO = Cargo(DataClass.PUBLIC, Residency.GLOBAL)
START = """
import sys
from pathlib import Path
from pydantic import TypeAdapter
import services.router.app
from services.router.endpoints import AnyDeployment
from services.router.providers.adapters import Adapters
from services.router.routes import load_routes
for deployment in load_routes(Path("deploy/local/routes.yaml"), {}).deployments:
    Adapters(None, None, {}).provider(deployment, None)
print(sorted(name for name in sys.modules if "litellm" in name))
"""

_deployment: TypeAdapter[Deployment] = TypeAdapter(AnyDeployment)


def complaint(**changes: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        _deployment.validate_python({**ENTRY, **changes})
    return " ".join(error["msg"] for error in caught.value.errors())


def test_nothing_of_litellm_is_imported_unless_it_is_configured():
    told = subprocess.run([sys.executable, "-c", START], capture_output=True, text=True, check=True, timeout=60)
    assert told.stdout.strip() == "[]"


def test_litellm_that_is_not_installed_is_a_mistake_of_the_routes_that_says_what_to_install():
    if importlib.util.find_spec("litellm"):
        assert _deployment.validate_python(ENTRY)
    else:
        assert "llmmesh[litellm]" in complaint()


def test_litellm_is_not_used_where_it_leaves_certificates_unchecked():
    said = complaint(model="gigachat/GigaChat-2-Max")
    assert "adapter gigachat" in said or "llmmesh[litellm]" in said


def test_a_model_of_litellms_own_address_book_is_across_the_border():
    said = complaint(region="russia")
    assert "base_url" in said or "llmmesh[litellm]" in said


async def test_a_caller_cannot_say_where_litellm_calls_or_as_whom():
    pytest.importorskip("litellm")
    from services.router.providers.litellm import LiteLLMProvider

    provider = LiteLLMProvider(_deployment.validate_python(ENTRY), "our key", {}, 0.0)
    for name in ("base_url", "api_base", "api_key", "timeout", "fallbacks", "mock_response"):
        prompt = chat_pb2.ChatPrompt(model="m", messages=[chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER)])
        prompt.options.extra_json[name] = '"http://127.0.0.1:1"'
        with pytest.raises(ProviderFailure, match=name):
            await anext(aiter(provider.stream_chat(prompt, CARGO)))
