"""Replaces personal data and secrets by placeholders such as [EMAIL_1]; what each stands for goes with the verdict.

One value has one placeholder in a whole prompt. A placeholder holds nothing that JSON would have to escape; in a text
that is JSON a number becomes a string, and keys and punctuation stay, so that JSON stays JSON.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import NamedTuple

from services.guard.verdict import Action, DataClass, Finding

MASKED_CATEGORIES = frozenset({"personal_data", "secret"})
LEAST_CLASS = DataClass.CONFIDENTIAL
TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|-?\d[\d.eE+-]*')
KEY_END = re.compile(r"\s*:")
ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{4}|.)")
TOKEN_REST = re.compile(r"""[^\s"'`,;<>(){}\[\]]*""")
KEY_BLOCK = re.compile(r"[A-Za-z0-9+/=\s\\]*(?:-----END [A-Z ]+-----)?")
WORDS = {"assignment": "SECRET", "bank_account": "ACCOUNT", "birth_date": "DATE", "home_address": "ADDRESS"}


class Part(NamedTuple):
    """A piece of text inside a longer span: where it lies."""

    start: int
    end: int
    kind: str
    is_number: bool = False
    """Whether it is a bare number of a JSON text."""


class Placeholders:
    """The placeholders of one prompt."""

    def __init__(self, texts: Iterable[str]) -> None:
        """`texts` are those of the prompt: what stands there already is no placeholder of ours."""
        self._taken = frozenset(re.findall(r"\[[A-Z0-9_]+_\d+\]", "\n".join(texts)))
        self._by_value: dict[tuple[str, str], str] = {}
        self._counts: dict[str, int] = {}

    def of(self, kind: str, value: str) -> str:
        """The placeholder of a value."""
        if (known := self._by_value.get((kind, value))) is not None:
            return known
        while True:
            number = self._counts[kind] = self._counts.get(kind, 0) + 1
            if (placeholder := f"[{kind}_{number}]") not in self._taken:
                self._by_value[kind, value] = placeholder
                return placeholder

    def originals(self) -> dict[str, str]:
        """What each placeholder stands for."""
        return {placeholder: value for (_, value), placeholder in self._by_value.items()}


def maskable(findings: Sequence[Finding], *, personal: bool) -> list[Finding]:
    """Of what was found in one message, what a provider must not see: what rules mask, and with `personal` all data.

    A bare name or address counts where something else tells whose it is.
    """
    data = [found for found in findings if found.category in MASKED_CATEGORIES]
    if personal and any(found.data_class >= LEAST_CLASS for found in data):
        return [found for found in findings if found.category in MASKED_CATEGORIES or found.action is Action.MASK]
    return [found for found in findings if found.action is Action.MASK]


def masked(text: str, findings: Iterable[Finding], placeholders: Placeholders) -> str:
    """The text with the findings replaced; in JSON, with values replaced by strings."""
    spans = merged(to_their_ends(text, findings))
    json_text = bool(spans) and is_json(text)
    pieces: list[str] = []
    done = 0
    for start, end, kind, is_number in _json_parts(text, spans) if json_text else spans:
        placeholder = placeholders.of(kind, _unescaped(text[start:end]) if json_text else text[start:end])
        pieces += (text[done:start], f'"{placeholder}"' if is_number else placeholder)
        done = end
    return "".join((*pieces, text[done:]))


def to_their_ends(text: str, findings: Iterable[Finding]) -> Iterator[Finding]:
    """Findings of one text, secrets with all of each: rules look no further than they need to be sure.

    Each end is sought once, however many of the findings lie before it.
    """
    reached = {KEY_BLOCK: 0, TOKEN_REST: 0}
    for found in sorted(findings, key=lambda found: found.start):
        if found.category != "secret":
            yield found
            continue
        rest = KEY_BLOCK if "private_key" in found.rule else TOKEN_REST
        if found.end > reached[rest]:
            match = rest.match(text, found.end)
            reached[rest] = match.end() if match else found.end
        yield replace(found, end=reached[rest])


def merged(findings: Iterable[Finding]) -> list[Part]:
    """Where something is to be replaced, in order; what overlaps becomes one, called as its longest part."""
    spans: list[Part] = []
    for found in sorted(findings, key=lambda found: (found.start, -found.end)):
        part = Part(found.start, found.end, kind(found.rule))
        if spans and part.start < spans[-1].end:
            last = spans.pop()
            longest = max(last, part, key=lambda each: each.end - each.start)
            part = Part(last.start, max(last.end, part.end), longest.kind)
        spans.append(part)
    return spans


def is_json(text: str) -> bool:
    """Whether a text is a JSON object or array."""
    if text.lstrip()[:1] not in ("{", "["):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _json_parts(text: str, spans: Sequence[Part]) -> Iterator[Part]:
    """The spans as parts of JSON strings, or whole numbers: of a span over several tokens every value."""
    tokens = [_Token(text, found) for found in TOKEN.finditer(text)]
    starts, ends = [token.start for token in tokens], [token.end for token in tokens]
    done = 0
    for span in spans:
        touched = tokens[bisect_right(ends, span.start) : bisect_left(starts, span.end)]
        for token in [token for token in touched if not token.is_key] or touched[-1:]:
            part = token.within(span)
            if done <= part.start < part.end:
                yield part
                done = part.end


class _Token:
    """A string or a number of a JSON text."""

    def __init__(self, text: str, found: re.Match[str]) -> None:
        self.start, self.end = found.span()
        self._text = text

    @property
    def is_key(self) -> bool:
        """Whether a value follows that belongs to it."""
        return KEY_END.match(self._text, self.end) is not None

    @cached_property
    def _escapes(self) -> list[tuple[int, int]]:
        return [found.span() for found in ESCAPE.finditer(self._text, self.start + 1, self.end)]

    def within(self, span: Part) -> Part:
        """The part of it that a span covers: of a number all, of a string no half of an escape."""
        if self._text[self.start] != '"':
            return Part(self.start, self.end, span.kind, is_number=True)
        start, end = max(self.start + 1, span.start), min(self.end - 1, span.end)
        return Part(self._past_escape(start), self._past_escape(end), span.kind)

    def _past_escape(self, place: int) -> int:
        """The end of the escape that a place lies in, else the place."""
        before = bisect_left(self._escapes, (place,)) - 1
        return max(place, self._escapes[before][1]) if before >= 0 else place


def _unescaped(value: str) -> str:
    try:
        return str(json.loads(f'"{value}"'))
    except ValueError:
        return value


def kind(rule: str) -> str:
    """What a placeholder says of what a rule found."""
    word = rule.split(".")[1]
    return WORDS.get(word, word.upper())
