from __future__ import annotations

import zlib

import pytest

from services.cache.codec import COMPRESS_FROM_BYTES, DEFLATED, PLAIN, EntryCorrupt, pack, unpack
from tests.support.cache_calls import answer


@pytest.mark.parametrize("text", ["", "short", "длинный ответ " * 5000])
def test_an_answer_survives_packing(text: str) -> None:
    assert unpack(pack(answer(text))) == answer(text)


def test_only_long_answers_are_compressed() -> None:
    assert pack(answer("short"))[:1] == PLAIN
    packed = pack(answer("word " * COMPRESS_FROM_BYTES))
    assert packed[:1] == DEFLATED
    assert len(packed) < COMPRESS_FROM_BYTES


@pytest.mark.parametrize(
    "entry",
    [
        b"",
        b"\x07future format",
        PLAIN + b"\xff\xff\xff",
        DEFLATED + b"not deflate",
        pack(answer("word " * 5000))[:-5],
        DEFLATED + zlib.compress(b"\0" * 40 * 1024 * 1024),
    ],
    ids=["empty", "unknown format", "no message", "no deflate stream", "cut short", "bomb"],
)
def test_anything_else_is_corrupt(entry: bytes) -> None:
    with pytest.raises(EntryCorrupt):
        unpack(entry)
