"""What an unfinished match looks like: expressions for `regex`, whose partial matching tells how far one has come.

Hyperscan reads PCRE's language and `regex` Python's: a rule that stops answers is written in what both read alike.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress

import regex

from services.guard.matching import Expression, ExpressionInvalid

SEARCH_SECONDS = 0.02
"""Longest that one look may take; only expressions take it in which repeats stand inside repeats."""
SEARCHES = 3
"""So often is one look tried: that it took too long once says more of a busy machine than of the expressions."""

NEVER = rb"[^\x00-\xff]"
"""Behind a finished match: it can only be met partially, by more text that never comes."""
_TOKEN = re.compile(rb"\\(?:x[0-9A-Fa-f]{2}|.)|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?[^:)]*[:)]|\(\*|\{,|.", re.DOTALL)
_ALIKE = re.compile(
    rb"\\(?:[dDwWsSnrtf]|x[0-9A-Fa-f]{2}|[^0-9A-Za-z])"
    rb"|\[\^?\]?(?:\\(?:[dDwWsSnrtf]|x[0-9A-Fa-f]{2}|[^0-9A-Za-z])|(?!--|&&|\|\||~~)[^\]\\\[])*\]"
    rb"|\(\?:"
    rb"|[^\\\[^$]",
    re.DOTALL,
)
_EDGES = {rb"\b": rb"(?:\b|\Z)", rb"\B": rb"(?:\B|\Z)"}
"""Whether there is an edge where the text ends for now, only more text tells: there may be, and there may not."""


class Openings:
    """Finds the tail of a text that more text could turn into a match."""

    def __init__(self, expressions: Sequence[Expression]) -> None:
        """Read the expressions.

        Raises:
            ExpressionInvalid: If one says something that the two languages understand differently.
        """
        # Scoped flags for case beside each other make `regex` miss partial matches.
        kinds = {each.case_sensitive: 0 if each.case_sensitive else regex.IGNORECASE for each in expressions}
        self._patterns = [
            _compiled([each.source for each in expressions if each.case_sensitive is case_sensitive], flag)
            for case_sensitive, flag in kinds.items()
        ]
        self._too_slow = False

    def start(self, folded: bytes, earliest: int) -> int:
        """Where the tail begins, at `earliest` or later; the end when nothing in it begins a match.

        Expressions that take too long are not asked again: all from `earliest` on could then begin a match.
        """
        if self._too_slow:
            return earliest
        for _ in range(SEARCHES):
            with suppress(TimeoutError):
                tails = [
                    pattern.search(folded, earliest, partial=True, timeout=SEARCH_SECONDS) for pattern in self._patterns
                ]
                return min((tail.start() for tail in tails if tail), default=len(folded))
        self._too_slow = True
        return earliest


def _compiled(sources: Sequence[bytes], flag: int) -> regex.Pattern[bytes]:
    alternatives = b"|".join(b"(?:%s)" % _open(source) for source in sources)
    return regex.compile(b"(?:%s)%s" % (alternatives, NEVER), regex.DOTALL | flag)


def _open(source: bytes) -> bytes:
    return b"".join(map(_token, _TOKEN.findall(source)))


def _token(token: bytes) -> bytes:
    if (edge := _EDGES.get(token)) is not None:
        return edge
    if _ALIKE.fullmatch(token) and token not in (b"(*", b"{,"):
        return token
    raise ExpressionInvalid(f"an answer cannot be watched for {token.decode('latin-1')!r}: write it another way")
