"""Every HTTP adapter before a server that speaks its provider's wire format: what the contract suite runs over."""

from __future__ import annotations

import importlib.util
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trustme
from pydantic import TypeAdapter

from llmmesh.chat.v1 import chat_pb2
from meshkit.egress import Cargo, DataClass, Residency
from services.router.deployment import Deployment
from services.router.endpoints import AnyDeployment
from services.router.providers.adapters import opened_providers
from services.router.providers.provider import Ended, FailureKind, Provider
from tests.support.scripted_gigachat import GigaChatWire
from tests.support.scripted_gigachat_v2 import GigaChatV2Wire
from tests.support.scripted_openai import CloudRuWire, OpenAIWire, YandexOpenAIWire
from tests.support.scripted_provider import ScriptedProvider, scripted_provider
from tests.support.scripted_stream import Wire
from tests.support.scripted_yandex import (
    ACCOUNT_TOKENS,
    METADATA,
    YandexAccountWire,
    YandexTokenWire,
    YandexWire,
    account_key_file,
)

PUBLIC = Cargo(DataClass.PUBLIC, Residency.GLOBAL)
SENSITIVE = Cargo(DataClass.SENSITIVE, Residency.GLOBAL)

SECRET = "a2V5LWlkOnNlY3JldC1vZi1vdXJz"
"""The credential in every case; base64 of key-id:secret-of-ours, as GigaChat wants it."""
ENVIRONMENT = {"CONTRACT_KEY": SECRET, "CONTRACT_KEY_ID": "key-id", "CONTRACT_FOLDER": "b1gfolder"}

_deployment: TypeAdapter[Deployment] = TypeAdapter(AnyDeployment)


@dataclass(frozen=True)
class Case:
    """One adapter and the server it is tried against."""

    name: str
    wire: Callable[[], Wire]
    entry: dict[str, Any]
    """What its routes entry has beyond the common fields."""
    script: dict[str, Any] = field(default_factory=dict)
    schema: Callable[[Any], Any] = lambda body: body["response_format"]["json_schema"]["schema"]
    """Where the JSON schema stands in the request."""
    model_name: Callable[[Any], Any] = lambda body: body["model"]
    addresses: dict[str, str] = field(default_factory=dict)
    """Further URLs of its entry, by field, as paths on the server."""
    environment: Callable[[], dict[str, str]] = dict
    """Further variables its entry refers to."""
    tls: bool = False
    tells_cached: bool = True
    renews: bool = False
    """Whether it is known by tokens."""
    faithful: bool = True
    """Whether we see what the provider sent; a library between makes up figures and takes one fault for another."""

    def __str__(self) -> str:
        return self.name


BEARER = {"authorization": f"Bearer {SECRET}"}
CASES = [
    Case("openai", OpenAIWire, {"adapter": "openai"}, BEARER),
    Case("dashscope", OpenAIWire, {"adapter": "openai", "profile": "dashscope"}, {**BEARER, "most_texts": 10}),
    Case("yandex_openai", YandexOpenAIWire, {"adapter": "openai", "profile": "yandex"}, {**BEARER, "most_texts": 1}),
    Case("vllm", OpenAIWire, {"adapter": "openai", "profile": "vllm", "region": "local"}, BEARER),
    Case(
        "cloudru",
        CloudRuWire,
        {"adapter": "cloudru", "key_id": "env:CONTRACT_KEY_ID"},
        addresses={"token_url": "/api/v1/auth/token"},
        renews=True,
    ),
    Case(
        "gigachat",
        GigaChatWire,
        {"adapter": "gigachat", "concurrency": 10},
        schema=lambda body: body["response_format"]["schema"],
        addresses={"token_url": "/api/v2/oauth"},
        tls=True,
        renews=True,
    ),
    Case(
        "gigachat_v2",
        GigaChatV2Wire,
        {"adapter": "gigachat", "api": "v2", "concurrency": 10},
        schema=lambda body: body["model_options"]["response_format"]["schema"],
        addresses={"token_url": "/api/v2/oauth"},
        tls=True,
        renews=True,
    ),
    Case(
        "yandex",
        YandexWire,
        {"adapter": "yandex", "folder": "env:CONTRACT_FOLDER"},
        {"authorization": f"Api-Key {SECRET}"},
        schema=lambda body: body["jsonSchema"]["schema"],
        model_name=lambda body: body["modelUri"].split("/")[3],
        tells_cached=False,
    ),
    Case(
        "yandex_metadata",
        YandexTokenWire,
        {"adapter": "yandex", "folder": "b1gfolder", "auth": "metadata", "credential": None},
        schema=lambda body: body["jsonSchema"]["schema"],
        model_name=lambda body: body["modelUri"].split("/")[3],
        addresses={"metadata_url": METADATA},
        tells_cached=False,
        renews=True,
    ),
    Case(
        "yandex_account",
        YandexAccountWire,
        {"adapter": "yandex", "folder": "b1gfolder", "auth": "account_key", "credential": "env:CONTRACT_ACCOUNT_KEY"},
        schema=lambda body: body["jsonSchema"]["schema"],
        model_name=lambda body: body["modelUri"].split("/")[3],
        addresses={"token_url": ACCOUNT_TOKENS},
        environment=lambda: {"CONTRACT_ACCOUNT_KEY": account_key_file()},
        tells_cached=False,
        renews=True,
    ),
]
if importlib.util.find_spec("litellm"):
    # An extra outside the lock: `make test-litellm` installs it beside.
    entry = {"adapter": "litellm", "model": "openai/model-of-theirs"}
    CASES.append(Case("litellm", OpenAIWire, entry, BEARER, faithful=False))
FAITHFUL = [case for case in CASES if case.faithful]
BY_NAME = {case.name: case for case in CASES}


def agree(case: Case, kind: FailureKind, expected: FailureKind) -> bool:
    """Whether a failure is told for what it is, as far as the case can tell."""
    confused = not case.faithful and {kind, expected} <= {FailureKind.MALFORMED, FailureKind.UNAVAILABLE}
    return kind is expected or confused


@dataclass(frozen=True)
class Opened:
    """An adapter at work."""

    case: Case
    server: ScriptedProvider
    chat: Provider
    embedder: Provider
    deployment: Deployment

    @property
    def sent(self) -> Any:
        """The last body sent, a token request's aside."""
        return [each for each in self.server.requests if self.server.wire.task(each) != "token"][-1].json()

    @property
    def headers(self) -> dict[str, str]:
        """The headers that went with it."""
        return [each for each in self.server.requests if self.server.wire.task(each) != "token"][-1].headers


@dataclass(frozen=True)
class Authority:
    """A private certificate authority and a server's certificate from it."""

    pem: Path
    server: ssl.SSLContext


def private_authority(folder: Path) -> Authority:
    """Make one for 127.0.0.1."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    pem = folder / "authority.pem"
    authority.cert_pem.write_to_path(str(pem))
    return Authority(pem, context)


@asynccontextmanager
async def opened(case: Case, authority: Authority, **changes: Any) -> AsyncIterator[Opened]:
    """Run the case's server and its adapter; `changes` go into the routes entry."""
    tls = authority.server if case.tls else None
    async with scripted_provider(wire=case.wire(), tls=tls, **case.script) as server:
        entry = routes_entry(case, server, authority) | changes
        chat = _deployment.validate_python(entry)
        embedder = _deployment.validate_python(entry | {"name": "e", "serves": "e", "embeds": True})
        nobody: Any = None
        async with opened_providers(nobody, ENVIRONMENT | case.environment(), 100) as providers:
            opened_now = providers.open([chat, embedder])
            yield Opened(case, server, opened_now[chat.name], opened_now["e"], chat)


def routes_entry(case: Case, server: ScriptedProvider, authority: Authority) -> dict[str, Any]:
    """The entry of a routes file that leads to the server."""
    origin = server.base_url.removesuffix(server.wire.root)
    entry = {
        "name": case.name,
        "provider": case.name,
        "base_url": server.base_url,
        "model": "model-of-theirs",
        "serves": "m",
        "region": "russia",
        "credential": "env:CONTRACT_KEY",
        "context_tokens": 1000,
        "capabilities": ["tools", "json_schema"],
        "timeouts": {"connect_seconds": 2, "first_token_seconds": 2, "idle_chunk_seconds": 1},
        **({"ca_file": authority.pem} if case.tls else {}),
        **case.entry,
        **{name: origin + path for name, path in case.addresses.items()},
    }
    return {name: value for name, value in entry.items() if value is not None}


@dataclass
class Said:
    """A whole answer."""

    text: str = ""
    reasoning: str = ""
    calls: list[chat_pb2.ToolCall] = field(default_factory=list)
    pieces: int = 0
    ended: Ended | None = None

    def add(self, event: chat_pb2.Delta | Ended) -> None:
        """Take one event in."""
        assert self.ended is None, "nothing follows the end"
        if isinstance(event, Ended):
            if event.last is not None:
                self.add(event.last)
            self.ended = event
            return
        self.pieces += 1
        self.text += event.text
        self.reasoning += event.reasoning
        for piece in event.tool_calls:
            if piece.index == len(self.calls):
                self.calls.append(chat_pb2.ToolCall(id=piece.id, name=piece.name))
            self.calls[piece.index].arguments += piece.arguments


async def answer(provider: Provider, prompt: chat_pb2.ChatPrompt, said: Said | None = None) -> Said:
    """The whole answer to a prompt of public data; given `said`, what was said before a failure is kept there."""
    said = said or Said()
    async for event in provider.stream_chat(prompt, PUBLIC):
        said.add(event)
    return said


def question(text: str = "Tell me about foxes", **options: Any) -> chat_pb2.ChatPrompt:
    """A prompt of one message."""
    return conversation((chat_pb2.ROLE_USER, text), **options)


def conversation(*turns: tuple[chat_pb2.Role.ValueType, str], **options: Any) -> chat_pb2.ChatPrompt:
    """A prompt of several messages."""
    return chat_pb2.ChatPrompt(
        model="m",
        messages=[chat_pb2.ChatMessage(role=role, content=[chat_pb2.ContentPart(text=text)]) for role, text in turns],
        options=chat_pb2.GenerationOptions(**options),
    )
