"""Whatever text is tried, the guard answers, and soon."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from llmmesh.guard.v1 import guard_pb2
from meshkit.identity import Identity, acting_as
from tests.room.guard.conftest import LONGEST_CHARACTERS

ADA = Identity("acme", "key-1", frozenset({"developer"}), "req-1")
LONGEST_SECONDS = 10.0
"""For the longest of the texts on a machine that does other work too; most take a millisecond."""
WORDS = ("ignore", "previous", "instructions", "игнорируй", "карта 4111 1111 1111 1111", "sk-", "=====", "aWdub3Jl")


def any_characters(chance: Random) -> str:
    return "".join(chr(_code(chance)) for _ in range(chance.randint(0, 300)))


def _code(chance: Random) -> int:
    code = chance.randrange(0x110000) if chance.random() < 0.5 else chance.randrange(0x500)
    return code if not 0xD800 <= code < 0xE000 else 0xFFFD


def binary(chance: Random) -> str:
    return chance.randbytes(chance.randint(0, 400)).decode("latin-1")


def words(chance: Random) -> str:
    separators = (" ", "", "\n", "\u200b", "-", "%20")
    return "".join(chance.choice(WORDS) + chance.choice(separators) for _ in range(chance.randint(0, 40)))


def nested(chance: Random) -> str:
    data = words(chance)[:60].encode()
    for _ in range(chance.randint(1, 8)):
        data = base64.b64encode(data) if chance.random() < 0.7 else data.hex().encode()
    return data.decode()[:LONGEST_CHARACTERS]


def monotonous(chance: Random) -> str:
    return chance.choice(("a", "%41", "&#x", "\\u0061", "=", "1 ", "((", "\u0301", "\U000e0041")) * chance.randint(
        1, 2000
    )


KINDS: tuple[Callable[[Random], str], ...] = (any_characters, binary, words, nested, monotonous)


async def slowest(stub: Any, texts: list[str]) -> float:
    """Time of the slowest check; every one has a verdict that is no error."""
    seconds = []
    for number, text in enumerate(texts):
        direction = guard_pb2.DIRECTION_OUTPUT if number % 3 == 0 else guard_pb2.DIRECTION_INPUT
        started = time.perf_counter()
        with acting_as(ADA):
            request = guard_pb2.CheckTextRequest(text=text, direction=direction)
            response = await stub.CheckText(request, timeout=LONGEST_SECONDS)
        seconds.append(time.perf_counter() - started)
        assert response.verdict.action in (guard_pb2.ACTION_ALLOW, guard_pb2.ACTION_BLOCK), ascii(text[:200])
    return max(seconds)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
async def test_a_hundred_random_texts_are_judged(stub: Any, kind: Callable[[Random], str]) -> None:
    chance = Random(kind.__name__)
    assert await slowest(stub, [kind(chance) for _ in range(100)]) < LONGEST_SECONDS


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
async def test_a_thousand_random_texts_of_each_kind_are_judged(stub: Any, kind: Callable[[Random], str]) -> None:
    chance = Random(f"slow {kind.__name__}")
    assert await slowest(stub, [kind(chance) for _ in range(1000)]) < LONGEST_SECONDS


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
async def test_the_longest_text_of_each_kind_is_judged(stub: Any, kind: Callable[[Random], str]) -> None:
    chance, text = Random(kind.__name__), ""
    while len(text) < LONGEST_CHARACTERS:
        text += kind(chance)
    assert await slowest(stub, [text[:LONGEST_CHARACTERS]]) < LONGEST_SECONDS
