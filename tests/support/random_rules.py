"""Random rules for answers, each with a definition of what it matches that owes nothing to any engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce
from random import Random

from hypothesis import strategies as st

from services.guard.patterns import LoadedRule
from services.guard.rules import Rule

LETTERS = "abc12- _"
"""What the rules speak of: letters, digits and signs, so that there are edges of words."""
ANY = frozenset(range(256))
SPACE = b" \t\n\v\f\r"
WORD = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")

Ends = Callable[[bytes, int], frozenset[int]]
Sample = Callable[[Random], str]


@dataclass(frozen=True)
class Piece:
    """A part of an expression."""

    source: str
    shortest: int
    longest: int
    ends: Ends = field(repr=False)
    """All ends of its matches that begin at a place of a text."""
    sample: Sample = field(repr=False)
    """Texts that it matches, edges of words aside."""


@dataclass(frozen=True)
class RandomRule:
    """A rule and its definition."""

    piece: Piece
    loaded: LoadedRule = field(repr=False)

    def matches(self, folded: bytes) -> list[tuple[int, int]]:
        """Every match in a folded text."""
        read = folded if self.loaded.rule.case_sensitive else folded.lower()
        return [(start, end) for start in range(len(read)) for end in self.piece.ends(read, start)]


def _characters(source: str, codes: Iterable[int]) -> Piece:
    allowed = frozenset(codes)
    letters = [chr(code) for code in sorted(allowed) if code < 128]

    def ends(text: bytes, at: int) -> frozenset[int]:
        return frozenset({at + 1} if at < len(text) and text[at] in allowed else ())

    return Piece(source, 1, 1, ends, lambda chance: chance.choice(letters))


def _class(letters: set[str], *, negated: bool) -> Piece:
    source = "".join(sorted(letters - {"-"})) + "-" * ("-" in letters)
    codes = frozenset("".join(letters).encode())
    return _characters(f"[{'^' * negated}{source}]", ANY - codes if negated else codes)


def _edge(source: str, *, wanted: bool) -> Piece:
    def ends(text: bytes, at: int) -> frozenset[int]:
        before, after = at > 0 and text[at - 1] in WORD, at < len(text) and text[at] in WORD
        return frozenset({at} if (before != after) is wanted else ())

    return Piece(source, 0, 0, ends, lambda _: "")


def _sequence(first: Piece, second: Piece) -> Piece:
    def ends(text: bytes, at: int) -> frozenset[int]:
        return frozenset(end for middle in first.ends(text, at) for end in second.ends(text, middle))

    def sample(chance: Random) -> str:
        return first.sample(chance) + second.sample(chance)

    longest = first.longest + second.longest
    return Piece(first.source + second.source, first.shortest + second.shortest, longest, ends, sample)


def _either(first: Piece, second: Piece) -> Piece:
    def ends(text: bytes, at: int) -> frozenset[int]:
        return first.ends(text, at) | second.ends(text, at)

    def sample(chance: Random) -> str:
        return chance.choice((first, second)).sample(chance)

    shortest, longest = min(first.shortest, second.shortest), max(first.longest, second.longest)
    return Piece(f"(?:{first.source}|{second.source})", shortest, longest, ends, sample)


def _repeated(piece: Piece, least: int, most: int) -> Piece:
    def ends(text: bytes, at: int) -> frozenset[int]:
        reached, found = frozenset({at}), frozenset({at} if least == 0 else ())
        for count in range(1, most + 1):
            reached = frozenset(end for middle in reached for end in piece.ends(text, middle))
            found |= reached if count >= least else frozenset()
        return found

    def sample(chance: Random) -> str:
        return "".join(piece.sample(chance) for _ in range(chance.randint(least, most)))

    source = f"(?:{piece.source}){{{least},{most}}}"
    return Piece(source, piece.shortest * least, piece.longest * most, ends, sample)


_EDGES = st.sampled_from([_edge(r"\b", wanted=True), _edge(r"\B", wanted=False)])
_CLASSES = st.builds(_class, st.sets(st.sampled_from(LETTERS), min_size=1), negated=st.booleans())
_LETTERS = st.sampled_from([_characters(letter, letter.encode()) for letter in LETTERS])
_SHORT = st.sampled_from(
    [_characters(r"\d", b"0123456789"), _characters(r"\w", WORD), _characters(r"\s", SPACE), _characters(".", ANY)]
)
_ATOMS = st.one_of(_LETTERS, _LETTERS, _CLASSES, _SHORT)
_SEQUENCES = st.lists(st.one_of(_ATOMS, _ATOMS, _EDGES), min_size=1, max_size=4).map(partial(reduce, _sequence))
_PIECES = st.recursive(
    _SEQUENCES,
    lambda inner: st.one_of(
        st.builds(_either, inner, inner),
        st.builds(_sequence, inner, inner),
        st.tuples(inner, st.integers(0, 2), st.integers(1, 3)).map(
            lambda drawn: _repeated(drawn[0], drawn[1], drawn[1] + drawn[2])
        ),
    ),
    max_leaves=4,
).filter(lambda piece: piece.shortest > 0 and piece.longest <= 24)


@st.composite
def random_rules(draw: st.DrawFn, actions: Sequence[str] = ("block", "allow")) -> list[RandomRule]:
    """One to three rules; the first one does the first of the actions."""
    pieces = draw(st.lists(_PIECES, min_size=1, max_size=3))
    return [
        RandomRule(piece, _loaded(draw, number, piece, draw(st.sampled_from(actions)) if number else actions[0]))
        for number, piece in enumerate(pieces)
    ]


def _loaded(draw: st.DrawFn, number: int, piece: Piece, action: str) -> LoadedRule:
    rule = Rule.model_validate(
        {
            "id": f"random.rule_{number}",
            "category": "secret",
            "languages": ("any",),
            "direction": "output",
            "severity": "critical" if action == "block" else "high",
            "action": action,
            "patterns": (piece.source,),
            "case_sensitive": draw(st.booleans()),
            "max_length": piece.longest,
            "must_match": ("-",),
            "must_not_match": ("-",),
        }
    )
    return LoadedRule(rule, {})
