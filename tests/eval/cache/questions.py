"""Questions that ask the same in other words, and questions that only look alike.

A file of `questions/` is one part and one language. Its topics stand in no other part, so that nothing measured on one
part was learned from the same templates in another; the newest of all parts share fields, not questions. Lines
with `=` are one question in several wordings; each line with `!` asks something else than all of them, and says in what
it differs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

FOLDER = Path(__file__).with_name("questions")
PARTS = ("train", "weighing", "calibration", "heldout")
LANGUAGES = ("en", "ru")
ECHO = "echo"
"""The kind of a pair that differs in capitals and stops alone: learned from, but too easy to judge by."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two questions, and whether one answer fits both."""

    part: str
    lang: str
    topic: str
    cluster: int
    kind: str
    """"same", "echo", or in what the second differs."""
    a: str
    b: str

    @property
    def same(self) -> bool:
        """Whether one answer fits both."""
        return self.kind in ("same", ECHO)


def load(*parts: str) -> list[Pair]:
    """The pairs of these parts, in both languages."""
    return [pair for part in parts or PARTS for lang in LANGUAGES for pair in _read(part, lang)]


def echoes(pairs: Iterable[Pair]) -> list[Pair]:
    """The first wording of each cluster beside itself, without capitals and stops."""
    first = {(pair.lang, pair.topic, pair.cluster): pair for pair in reversed(list(pairs))}.values()
    return [replace(pair, kind=ECHO, b=pair.a.lower().strip(" ?.")) for pair in first]


def _read(part: str, lang: str) -> Iterator[Pair]:
    topic = ""
    blocks = (FOLDER / f"{part}.{lang}.txt").read_text(encoding="utf-8").split("\n\n")
    for number, block in enumerate(blocks):
        lines = block.strip().splitlines()
        topic = next((line[2:] for line in lines if line.startswith("# ")), topic)
        same = [line[2:] for line in lines if line.startswith("= ")]
        other = [line[2:].split(": ", 1) for line in lines if line.startswith("! ")]
        yield from (Pair(part, lang, topic, number, "same", a, b) for a, b in combinations(same, 2))
        yield from (Pair(part, lang, topic, number, kind, a, b) for kind, b in other for a in same)
