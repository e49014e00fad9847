"""What is kept of answers, for whom and how long."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from llmmesh.chat.v1 import chat_pb2
from meshkit.identity import Identity, acting_as
from tests.support.cache_calls import answer, leasing, lookup, message, prompt, store

ACME = Identity(tenant_id="acme")
SMALL = {"largest_answer_bytes": 50}


@pytest.fixture(autouse=True)
async def redis(redis_url: str) -> Any:
    client = Redis.from_url(redis_url)
    await client.flushall()
    yield client
    await client.aclose()


def shown(part: chat_pb2.ContentPart) -> chat_pb2.ChatPrompt:
    """A question of what is shown beside it."""
    asked = prompt("Is the gate open?")
    asked.messages[0].content.append(part)
    return asked


@pytest.mark.parametrize(
    "refused",
    [
        prompt(messages=[message("Weather?"), message("{}", chat_pb2.ROLE_TOOL), message("And?")]),
        prompt(options=chat_pb2.GenerationOptions(temperature=1.1)),
        shown(chat_pb2.ContentPart(image_url=chat_pb2.ImageUrl(url="https://cam.example.org/latest.jpg"))),
        shown(chat_pb2.ContentPart(raw_json='{"type":"video_url","video_url":{"url":"https://cam.example.org/"}}')),
    ],
    ids=["tool results", "temperature", "an image by its address", "a video by its address"],
)
async def test_what_only_its_caller_may_have_is_neither_kept_nor_leased(stub: Any, redis: Any, refused: Any) -> None:
    with acting_as(ACME):
        found = await stub.LookupAnswer(leasing(refused))
        stored = await stub.StoreAnswer(store(refused))
    assert (found.lease_id, found.leased_elsewhere, list(stored.levels)) == ("", False, [])
    assert await redis.dbsize() == 0


async def test_the_answer_to_an_image_that_is_sent_along_is_kept(stub: Any) -> None:
    asked = shown(chat_pb2.ContentPart(image_url=chat_pb2.ImageUrl(url="data:image/png;base64,AAAA")))
    with acting_as(ACME):
        await stub.StoreAnswer(store(asked))
        assert (await stub.LookupAnswer(lookup(asked))).HasField("answer")


async def test_a_tenants_limits_bound_what_is_kept_and_how_long(stub: Any, redis: Any) -> None:
    cases = (
        ("default", None, {"default_ttl": timedelta(seconds=90)}, 90),
        ("longest", 500, {"max_ttl": timedelta(seconds=100)}, 100),
        ("shortest", 5, {"min_ttl": timedelta(seconds=200)}, 200),
        ("asked", 150, {"min_ttl": timedelta(seconds=100), "max_ttl": timedelta(seconds=200)}, 150),
    )
    with acting_as(ACME):
        for name, asked, limits, seconds in cases:
            ttl = None if asked is None else timedelta(seconds=asked)
            await redis.flushall()
            await stub.StoreAnswer(store(prompt(name), semantic=False, limits=limits, ttl=ttl))
            (key,) = await redis.keys()
            assert seconds - 2 <= await redis.ttl(key) <= seconds
        cold = {"highest_temperature": 0.5}
        warm = prompt(options=chat_pb2.GenerationOptions(temperature=0.6))
        assert not (await stub.StoreAnswer(store(warm, limits=cold))).levels
        assert not (await stub.StoreAnswer(store(prompt("as warm as providers like it"), limits=cold))).levels
        assert not (await stub.StoreAnswer(store(prompt("big"), answer("x" * 99), limits=SMALL))).levels


@pytest.mark.parametrize(("age", "hit"), [(timedelta(0), False), (timedelta(hours=1), True)])
async def test_only_answers_young_enough_are_found(stub: Any, age: timedelta, hit: bool) -> None:
    request = lookup(prompt())
    request.max_age.FromTimedelta(age)
    with acting_as(ACME):
        await stub.StoreAnswer(store(prompt(), semantic=False))
        found = await stub.LookupAnswer(request)
    assert found.HasField("answer") is hit
