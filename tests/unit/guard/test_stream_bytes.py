"""The promise of the stream from the provider's first byte on: events cut anywhere, even inside a character."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmmesh.chat.v1 import chat_pb2
from services.guard.policy import Policy
from services.guard.stream import AnswerRules
from services.guard.verdict import Action
from services.router.providers.answer_reader import AnswerReader
from services.router.providers.json_lines import LineParser
from services.router.providers.provider import ProviderFailure

CARD = "4111 1111 1111 1111"
LETTERS = 'ab яЖ№é漢\u200b😀🇷🇺"\\/\n\t'
TEXTS_OF_ONE_EXAMPLE = 20

many = settings(max_examples=110, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
seeds = st.integers(0, 2**32)


def answer(chance: Random, *, planted: bool) -> str:
    """Text in many scripts, with a card in the middle of it if it is `planted`."""
    before, after = ("".join(chance.choices(LETTERS, k=chance.randint(0, 20))) for _ in range(2))
    return f"{before} {CARD if planted else 'none'} {after}"


def wire(text: str, chance: Random) -> Iterator[bytes]:
    """The text as a provider streams it: events of any size, in pieces of one byte or a few."""
    step, escaped = chance.randint(1, 9), chance.random() < 0.3
    body = bytearray()
    for start in range(0, len(text), step):
        chunk = {"choices": [{"index": 0, "delta": {"content": text[start : start + step]}}]}
        encoded = orjson.dumps(chunk)
        body += b"data: " + (_ascii(encoded) if escaped else encoded) + b"\n\n"
    size = chance.choice((1, 1, 2, 3, 7, 50))
    yield from (bytes(body[start : start + size]) for start in range(0, len(body), size))


def _ascii(encoded: bytes) -> bytes:
    """The same JSON with every other character as the escapes of its UTF-16 halves."""
    halves = "".join(
        character if character.isascii() else "".join(f"\\u{half.hex()}" for half in _halves(character))
        for character in encoded.decode()
    )
    return halves.encode()


def _halves(character: str) -> Iterator[bytes]:
    both = character.encode("utf-16-be")
    return (both[start : start + 2] for start in range(0, len(both), 2))


def shown(rules: AnswerRules, pieces: Iterator[bytes]) -> tuple[str, Action]:
    """What leaves the guard of what the router reads, and the verdict."""
    reader, watch, text = AnswerReader(), rules.watch(), ""
    try:
        for piece in pieces:
            for delta in reader.feed(piece):
                release = watch.feed(delta.text)
                text += release.text
                if release.verdict:
                    return text, release.verdict.action
        release = watch.feed("", last=True)
        assert release.verdict is not None
        return text + release.text, release.verdict.action
    finally:
        watch.close()


@many
@given(seeds)
def test_however_bytes_arrive_a_card_stays_and_what_is_before_it_is_whole(policy: Policy, seed: int) -> None:
    chance = Random(seed)
    for _ in range(TEXTS_OF_ONE_EXAMPLE):
        text = answer(chance, planted=True)
        assert shown(policy.answers, wire(text, chance)) == (text[: text.index(CARD)], Action.BLOCK)


@many
@given(seeds)
def test_however_bytes_arrive_harmless_text_is_the_same_at_the_other_end(policy: Policy, seed: int) -> None:
    chance = Random(seed)
    for _ in range(TEXTS_OF_ONE_EXAMPLE):
        text = answer(chance, planted=False)
        assert shown(policy.answers, wire(text, chance)) == (text, Action.ALLOW)


@many
@given(seeds)
def test_lines_of_json_may_be_cut_inside_a_character_too(seed: int) -> None:
    chance = Random(seed)
    for _ in range(TEXTS_OF_ONE_EXAMPLE):
        text = answer(chance, planted=True)
        body = b"".join(orjson.dumps({"choices": [{"index": 0, "delta": {"content": part}}]}) + b"\n" for part in text)
        said, reader = chat_pb2.Delta(), AnswerReader(LineParser())
        size = chance.randint(2, 9)
        for start in range(0, len(body), size):
            for delta in reader.feed(body[start : start + size]):
                said.text += delta.text
        assert said.text == text


@pytest.mark.parametrize("half", ["\\ud83d", "\\ude00"])
def test_half_a_character_in_an_event_of_its_own_breaks_the_answer_and_shows_nothing(half: str) -> None:
    reader = AnswerReader()
    event = f'data: {{"choices": [{{"index": 0, "delta": {{"content": "{half}"}}}}]}}\n\n'.encode()
    with pytest.raises(ProviderFailure):
        list(reader.feed(event))
