"""The encodings that text hides in: base64, base32, hex, binary, percent, escapes, entities, s p a c e d, l33t.

Each knows how to see that a text may hold it, where, and what a token of it says, in folded bytes.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import html
import re
from collections.abc import Callable, Sequence
from itertools import islice, takewhile
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from services.guard.folding import fold

Decode = Callable[[bytes], "bytes | None"]

HEX = re.compile(rb"(?:0x)?((?:[0-9a-fA-F]{2}){8,})")
BASE32 = re.compile(rb"[A-Z2-7]{16,}")
LEET = re.compile(rb"(?<![A-Za-z0-9@$])(?:[A-Za-z]+[013457@$]|[013457@$]+[A-Za-z])[A-Za-z013457@$]{2,}")
"""Begins where a word does: tried at every letter of a long one it would take time by the square of its length."""
LEET_LETTERS = bytes.maketrans(b"013457@$", b"oieastas")
URL_SAFE = bytes.maketrans(b"-_", b"+/")
JOINTS = re.compile(rb"[+/_-]+")
BREAK = rb"(?:[ \r]{0,3}\n|(?:\\r)?\\n)"
"""The end of a line, also as JSON writes it and as `_white_space` leaves it."""
LINE_BREAK = re.compile(BREAK)
CODE_START = rb"(?:(?<!\\)|(?![bfnrt]))"
"""Before a code: the letter of an escape, as of a line break, is no part of what stands behind it."""
SHORTEST_PACKED = 12
SHORTEST_CUT = 1024
"""Bytes of a code that may be a part of a longer one, cut inside a letter."""
CONTINUATION = bytes(range(0x80, 0xC0))
"""Bytes with which no letter of UTF-8 begins."""
LEAST_READABLE = 0.9


class Encoding(NamedTuple):
    """One way to hide text."""

    trigger: bytes
    """What a text that holds any of it matches, ignoring case."""
    token: re.Pattern[bytes]
    """One piece of it."""
    decode: Decode
    """What a piece says; None when it says nothing."""
    layers: int = 1
    """1 for a code; 0 for a mere disguise of letters, which nests in nothing."""
    located: bool = False
    """Whether `trigger` matches around every token, so that only there one need be sought."""
    hides: bool = True
    """Whether who reads the text misses what it says; what hides nothing is decoded to as many bytes as it has."""


def _percent(code: bytes) -> bytes | None:
    return _plain(unquote_to_bytes(code), least=0.0)


def _escape(code: bytes) -> bytes:
    return fold(code.decode("unicode_escape", "replace"))


def _entity(code: bytes) -> bytes:
    return fold(html.unescape(code.decode("ascii")))


def _bits(code: bytes) -> bytes | None:
    digits = re.sub(rb"[ ,]", b"", code)
    return _plain(int(digits, 2).to_bytes(len(digits) // 8, "big"))


def _hex_bytes(code: bytes) -> bytes | None:
    return _plain(bytes.fromhex(re.sub(rb"0x|[ :,]", b"", code).decode("ascii")))


def _spaced(code: bytes) -> bytes:
    return code[::2]


def _spread(_: bytes) -> bytes:
    return b" "


def _white_space(code: bytes) -> bytes:
    """JSON's line breaks and tabs, which would otherwise be the first letter of the next word."""
    return b" " * (len(code) - 1) + (b"\n" if b"n" in code else b" ")


def _leet(code: bytes) -> bytes | None:
    return code.translate(LEET_LETTERS) if LEET.fullmatch(code) else None


def _run(code: bytes) -> bytes | None:
    """A long run of letters and digits: something packed, or words joined by signs of which some are."""
    if plain := _unpack(code):
        return plain
    words = JOINTS.split(code)
    decoded = [_unpack(word) or _leet(word) or word for word in words]
    return b" ".join(decoded) if decoded != words else None


def _wrapped(code: bytes) -> bytes | None:
    """Things packed in lines of one length, the last of each perhaps shorter, among lines that stand for themselves."""
    lines = LINE_BREAK.split(code)
    said: list[bytes] = []
    at, joined = 0, False
    while at < len(lines):
        end = at + _alike(lines, at)
        shorter = end < len(lines) and len(lines[end]) < len(lines[at])
        plain, taken = _block(lines[at : end + shorter], end - at)
        joined |= plain is not None
        said += [plain] if plain is not None else [_run(line) or line for line in lines[at:end]]
        at += taken
    return b"\n".join(said) if joined else None


def _alike(lines: Sequence[bytes], at: int) -> int:
    """How many lines from one on are as long as that."""
    return sum(1 for _ in takewhile(lambda line: len(line) == len(lines[at]), islice(lines, at, None)))


def _block(lines: Sequence[bytes], whole: int) -> tuple[bytes | None, int]:
    """What lines say together, of which all or the first `whole` may be one code; and how many of them were taken."""
    for count in sorted({len(lines), whole}, reverse=True):
        if count > 1 and (plain := _unpack(b"".join(lines[:count]))):
            return plain, count
    return None, whole


def _unpack(run: bytes) -> bytes | None:
    """Hex, base32 or base64."""
    if len(run) < SHORTEST_PACKED:
        return None
    if (digits := HEX.fullmatch(run)) and (plain := _plain(binascii.unhexlify(digits[1]))):
        return plain
    packed = run.rstrip(b"=")
    if BASE32.fullmatch(packed) and (plain := _base(base64.b32decode, packed, 8)):
        return plain
    return _base(base64.b64decode, packed.translate(URL_SAFE), 4)


def _base(decode: Callable[[bytes], bytes], packed: bytes, group: int) -> bytes | None:
    try:
        return _plain(decode(packed + b"=" * (-len(packed) % group)))
    except binascii.Error:
        return None


def _plain(data: bytes, least: float = LEAST_READABLE) -> bytes | None:
    """The folded text of bytes that are text, in UTF-8 or UTF-16; None for anything else."""
    encoding = "utf-16-le" if len(data) > 3 and not any(data[1::2]) else "utf-8"
    may_be_cut = len(data) >= SHORTEST_CUT
    if may_be_cut and encoding == "utf-8":
        data = data.lstrip(CONTINUATION)
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(data, final=not may_be_cut)
    except UnicodeDecodeError:
        return None
    readable = sum(character.isalnum() or character.isspace() or character in ".,:;!?'\"-()" for character in text)
    return fold(text) if text and readable >= least * len(text) else None


ENCODINGS = (
    Encoding(rb"%[0-9a-f]{2}", re.compile(rb"(?:%[0-9a-fA-F]{2})+"), _percent),
    Encoding(
        rb"\\(?:u[0-9a-f]{4}|x[0-9a-f]{2}|[0-3][0-7]{2})",
        re.compile(rb"(?:\\(?:u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|[0-3][0-7]{2}))+"),
        _escape,
    ),
    Encoding(
        rb"&(?:#x?[0-9a-f]{2,6}|[a-z]{2,8});",
        re.compile(rb"(?:&(?:#[0-9]{2,7}|#[xX][0-9a-fA-F]{2,6}|[A-Za-z]{2,8});)+"),
        _entity,
    ),
    Encoding(rb"[01]{8}[ ,]?[01]{8}", re.compile(rb"(?:[01]{8}[ ,]?){2,}"), _bits),
    Encoding(
        rb"(?:[0-9a-f]{2}[ :,]){7}",
        re.compile(rb"(?:(?:0x)?[0-9a-fA-F]{2}[ :,]+){7,}(?:0x)?[0-9a-fA-F]{2}"),
        _hex_bytes,
    ),
    Encoding(
        rb"(?:^|[^a-z0-9\x80-\x9f\xe0-\xff])(?:[a-z\x80-\x9f\xe0-\xff][ ._*|/-]){3}[a-z\x80-\x9f\xe0-\xff]"
        rb"(?:[^a-z0-9\x80-\x9f\xe0-\xff]|$)",
        re.compile(
            rb"(?<![A-Za-z0-9\x80-\x9f\xe0-\xff])[A-Za-z\x80-\x9f\xe0-\xff]([ ._*|/-])[A-Za-z\x80-\x9f\xe0-\xff]"
            rb"(?:\1[A-Za-z\x80-\x9f\xe0-\xff]){2,}(?![A-Za-z0-9\x80-\x9f\xe0-\xff])"
        ),
        _spaced,
        layers=0,
    ),
    Encoding(
        rb"[^a-z0-9\x80-\x9f\xe0-\xff]{64}", re.compile(rb"[^A-Za-z0-9\x80-\x9f\xe0-\xff]{32,}"), _spread, layers=0
    ),
    Encoding(rb"\\[bfnrt]", re.compile(rb"(?:\\[bfnrt])+"), _white_space, layers=0, hides=False),
    Encoding(
        rb"[a-z0-9+/_-]{16}" + BREAK + rb"[a-z0-9+/_-]{2}",
        # A line on which other words follow is no part of a code. The look-behind is for time, as that of LEET.
        re.compile(
            rb"(?:(?<![A-Za-z0-9+/_-])|(?<=\\[bfnrt]))" + CODE_START + rb"[A-Za-z0-9+/_-]{16,}"
            rb"(?:" + BREAK + rb"[A-Za-z0-9+/_-]{2,}"
            rb"(?![A-Za-z0-9+/_\x80-\xff-]|[ ,.:;!?]{1,3}[A-Za-z\x80-\xff]))+={0,6}"
        ),
        _wrapped,
    ),
    Encoding(
        rb"[a-z0-9+/_-]{16,}={0,6}(?:[^a-z0-9+/_=-]|$)",
        re.compile(CODE_START + rb"[A-Za-z0-9+/_-]{16,}={0,6}"),
        _run,
        located=True,
    ),
    Encoding(
        rb"(?:^|[^a-z0-9@$])(?:[a-z]+[013457@$]|[013457@$]+[a-z])[a-z013457@$]{2,}(?:[^a-z0-9@$]|$)",
        LEET,
        _leet,
        layers=0,
        located=True,
    ),
)
"""Of two that begin at the same place, the one named first counts."""
