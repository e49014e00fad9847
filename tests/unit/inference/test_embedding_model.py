import asyncio

import pytest

from meshkit.errors import RateLimited
from services.inference.e5.tokens import MOST_TOKENS
from services.inference.embedding import Embedder


@pytest.fixture(scope="module")
def embedder():
    embedder = Embedder(threads=2, max_waiting=4)
    yield embedder
    embedder.close()


def likeness(one, other):
    return sum(a * b for a, b in zip(one.vector, other.vector, strict=True))


async def test_vectors_have_length_one_and_the_order_of_the_texts(embedder):
    texts = ["the cat sleeps", "stock prices fell", "кошка спит"]
    together = await embedder.embed(texts, as_query=True)
    alone = [(await embedder.embed([text], as_query=True))[0] for text in texts]
    assert together == alone
    assert [len(each.vector) for each in together] == [embedder.dimensions] * 3
    assert [likeness(each, each) for each in together] == pytest.approx([1, 1, 1], abs=1e-4)


async def test_the_same_thing_in_two_languages_is_closer_than_another_thing(embedder):
    texts = ["the cat sleeps on the sofa", "кошка спит на диване", "stock prices fell sharply on Monday"]
    english, russian, other = await embedder.embed(texts, as_query=True)
    assert likeness(english, russian) > likeness(english, other) + 0.05


async def test_questions_and_documents_are_embedded_differently(embedder):
    asked = await embedder.embed(["the cat sleeps"], as_query=True)
    found = await embedder.embed(["the cat sleeps"], as_query=False)
    assert asked[0].vector != found[0].vector


async def test_tokens_are_counted_with_prefix_and_marks(embedder):
    short, longer = await embedder.embed(["cat", "cat and dog"], as_query=True)
    assert 3 < short.input_tokens < longer.input_tokens


async def test_vectors_of_tokens_come_when_they_are_wanted_and_the_text_is_short(embedder):
    texts = ["the cat sleeps", "cat " * (MOST_TOKENS + 1)]
    short, long = await embedder.embed(texts, as_query=True, with_tokens=True)
    assert short.tokens is not None
    assert long.tokens is None
    assert (await embedder.embed(texts, as_query=True))[0].tokens is None


async def test_too_many_calls_at_once_are_refused(embedder):
    calls = [embedder.embed(["a text"], as_query=True) for _ in range(5)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes].count(RateLimited) == 1
