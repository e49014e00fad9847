"""Requests to the cache, as short as the tests that make them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from llmmesh.cache.v1 import cache_pb2
from llmmesh.chat.v1 import chat_pb2
from meshkit.identity import Identity, acting_as
from tests.support.scripted_embeddings import ScriptedEmbeddings
from tests.support.waiting import until

EXACT = cache_pb2.CACHE_LEVEL_EXACT
SEMANTIC = cache_pb2.CACHE_LEVEL_SEMANTIC


async def both_levels(stub: Any) -> None:
    """Wait until the cache stores at both levels."""

    async def stores_both() -> bool:
        return SEMANTIC in (await stub.StoreAnswer(store(prompt()))).levels

    with acting_as(Identity(tenant_id="readiness")):
        await until(stores_both)


@asynccontextmanager
async def on_its_way(stub: Any, embeddings: ScriptedEmbeddings, question: str) -> AsyncIterator[asyncio.Future[Any]]:
    """A store call for an answer whose question is not embedded before the block ends."""

    async def is_asked() -> bool:
        return question in embeddings.asked

    embeddings.going_on.clear()
    try:
        storing = asyncio.ensure_future(stub.StoreAnswer(store(prompt(question))))
        await until(is_asked)
        yield storing
    finally:
        embeddings.going_on.set()


def message(text: str, role: chat_pb2.Role.ValueType = chat_pb2.ROLE_USER) -> chat_pb2.ChatMessage:
    """One turn of text."""
    return chat_pb2.ChatMessage(role=role, content=[chat_pb2.ContentPart(text=text)])


def prompt(text: str = "How tall is Everest?", *, system: str = "", **fields: Any) -> chat_pb2.ChatPrompt:
    """A prompt of one question, with a system prompt when given."""
    turns = [message(system, chat_pb2.ROLE_SYSTEM)] if system else []
    return chat_pb2.ChatPrompt(**{"model": "small", "messages": [*turns, message(text)], **fields})


def answer(text: str = "8849 m", **fields: Any) -> cache_pb2.CachedAnswer:
    """A complete answer."""
    said = chat_pb2.Answer(**{"text": text, "finish_reason": chat_pb2.FINISH_REASON_STOP, **fields})
    return cache_pb2.CachedAnswer(answer=said, provider="local", deployment="local/small", request_id="r1")


def stored(text: str = "8849 m") -> cache_pb2.StoredAnswer:
    """An answer as it is written down."""
    return cache_pb2.StoredAnswer(answer=answer(text), question="How tall is Everest?")


def store(
    asked: chat_pb2.ChatPrompt, said: cache_pb2.CachedAnswer | None = None, **fields: Any
) -> cache_pb2.StoreAnswerRequest:
    """Store the answer of a public prompt at both levels."""
    defaults: dict[str, Any] = {
        "guard_policy_version": "p1",
        "data_class": chat_pb2.DATA_CLASS_PUBLIC,
        "semantic": True,
    }
    return cache_pb2.StoreAnswerRequest(prompt=asked, answer=said or answer(), **{**defaults, **fields})


def leasing(asked: chat_pb2.ChatPrompt, *, lease: float = 60, wait: float = 0) -> cache_pb2.LookupAnswerRequest:
    """Look a prompt up at the exact level and ask for the lease, in seconds."""
    request = lookup(asked)
    request.lease.FromMilliseconds(int(lease * 1000))
    request.wait.FromMilliseconds(int(wait * 1000))
    return request


def lookup(
    asked: chat_pb2.ChatPrompt, level: cache_pb2.CacheLevel.ValueType = EXACT, policy: str = "p1"
) -> cache_pb2.LookupAnswerRequest:
    """Look a prompt up at one level."""
    return cache_pb2.LookupAnswerRequest(prompt=asked, level=level, guard_policy_version=policy)
