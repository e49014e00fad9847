"""Judges an answer as it is spoken.

Guarantee: no character of a match of a rule that stops answers or masks them ever leaves, however the text is cut into
pieces and whatever invisible characters or look-alike letters it is written with; text is never re-ordered, lost or
doubled, but that a placeholder takes the place of what is masked.

What is held back is the shortest tail that could still become such a match: mostly nothing, at most
`AnswerRules.longest` visible characters and a backslash that may begin an escape. Hyperscan finds the matches; the
`regex` package's partial matching finds the tail, because Hyperscan does not tell how far an unfinished match has come.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from meshkit.log import get_logger
from services.guard.escapes import Escapes, without_halves
from services.guard.folding import fold, origins
from services.guard.matching import Compile, ExpressionInvalid, StreamMatcher
from services.guard.openings import Openings
from services.guard.patterns import LAYER, MOST_FINDINGS, LoadedRule, Match
from services.guard.redaction import Redaction
from services.guard.repetition import Repetition
from services.guard.verdict import Action, DataClass, Finding, RiskLevel, Verdict, merge, undecided

log = get_logger()

MOST_HELD = 1024
"""Characters, invisible ones included. An unfinished match that hides in more of them stops the answer."""
CONCEALED = "secret.concealed"
UNMASKABLE = "answer.unmaskable"
REPETITION = "answer.repetition"


@dataclass(frozen=True, slots=True)
class Release:
    """What may be shown now. A verdict ends the answer."""

    text: str
    verdict: Verdict | None = None
    runaway: bool = False
    """Whether the answer ends here although nothing in it is forbidden."""


class AnswerRules:
    """The rules for answers, ready to watch any number of them."""

    def __init__(self, rules: Sequence[LoadedRule], compiled: Compile, *, reads_escapes: bool = False) -> None:
        """With `reads_escapes` what matches counts, too, where JSON's line breaks and tabs are read as white space."""
        self.reads_escapes = reads_escapes
        self.rules = [loaded for loaded in rules for _ in loaded.expressions]
        self.matcher = StreamMatcher([expression for loaded in rules for expression in loaded.expressions], compiled)
        held = [loaded for loaded in rules if loaded.rule.action in (Action.BLOCK, Action.MASK)]
        self.masks = any(loaded.rule.action is Action.MASK for loaded in rules)
        self.reach = _longest(rules)
        """Longest match of any rule, in visible characters: how far back a match may begin."""
        self.longest = _longest(held)
        """Longest match of a rule that stops or masks: the most visible characters held back."""
        self.openings = _openings(held)
        """Finds what more text could turn into a match."""

    def watch(self, most_repeated: int = 0) -> AnswerWatch:
        """Start on a new answer that may repeat itself for so many characters; close the watch when done with it."""
        return AnswerWatch([self], most_repeated)


def _longest(rules: Sequence[LoadedRule]) -> int:
    return max((loaded.rule.max_length or 0 for loaded in rules), default=0)


def _openings(held: Sequence[LoadedRule]) -> Openings:
    for loaded in held:
        try:
            Openings(loaded.expressions)
        except ExpressionInvalid as error:
            raise ExpressionInvalid(f"{loaded.rule.id}: {error}") from error
    return Openings([expression for loaded in held for expression in loaded.expressions])


class _View:
    """An answer as some sets of rules read it: folded, as far back as a match may begin."""

    def __init__(self, sets: Sequence[AnswerRules], escapes: Escapes | None = None) -> None:
        """With `escapes` these are read, and one byte may not be known yet."""
        self.folded = b""
        self.reads_escapes = escapes is not None
        self._escapes = escapes
        self._longest = max(rules.longest for rules in sets)
        self._streams = [(rules, rules.matcher.open()) for rules in sets]

    def take(self, written: bytes, *, last: bool) -> list[Match]:
        """Read on; returns what matches, by its place in the whole answer."""
        piece = self._escapes.read(written, last=last) if self._escapes else written
        self.folded += piece
        found: list[Match] = []
        for rules, stream in self._streams:
            events = stream.scan(piece)
            if last:
                events += stream.close()
            found += [(rules.rules[number], start, end) for number, start, end in events]
        return found

    def open_from(self, undecided: int) -> int:
        """Where an unfinished match of a rule begins that stops or masks; the end when there is none."""
        earliest = max(undecided, len(self.folded) - self._longest)
        return min(rules.openings.start(self.folded, earliest) for rules, _ in self._streams)

    def forget(self, count: int) -> None:
        """Drop the first bytes."""
        self.folded = self.folded[count:]

    def close(self) -> None:
        """Let go of the matchers' memory. Closing again does nothing."""
        for _, stream in self._streams:
            stream.close()


class AnswerWatch:
    """One answer on its way to the client."""

    def __init__(self, sets: Sequence[AnswerRules], most_repeated: int, *, json: bool = False) -> None:
        """Watch for several sets of rules at once. With `json` the answer stays JSON, or ends."""
        self._repetition = Repetition(most_repeated)
        self._views = [_View(sets)]
        if reading := [rules for rules in sets if rules.reads_escapes]:
            self._views.append(_View(reading, Escapes()))
        self._reach = max(rules.reach for rules in sets)
        self._redaction = Redaction(json=json) if any(rules.masks for rules in sets) else None
        self._findings: dict[tuple[str, int], Finding] = {}
        self._data_class = DataClass.PUBLIC
        """Of all that was found, also of what is too much to be named."""
        self._seconds = 0.0
        self._received = 0
        self._held = ""
        # The views hold the folded text from byte `_window_start` on; `_origins` has the character
        # of the answer that each byte comes from, and bytes from `_undecided` on may belong to an unfinished match.
        self._window_start = 0
        self._origins: list[int] = []
        self._undecided = 0

    def verdict(self) -> Verdict:
        """On what was said until now, between two pieces."""
        return merge(self._findings.values(), {LAYER: self._seconds}).at_least(self._data_class)

    def close(self) -> None:
        """Let go of the matchers' memory. Closing again does nothing."""
        for view in self._views:
            view.close()

    def feed(self, text: str, *, last: bool = False) -> Release:
        """Take the next piece; returns what may be shown. Nothing may follow a verdict.

        A failure ends the answer with an error, and what is held stays held.
        """
        self._seconds -= time.perf_counter()
        try:
            if last or not self._repetition.runs_away(text):
                return self._feed(text, last=last)
            return self._cut(text)
        except Exception as error:
            log.exception("answer_watch_failed", error=type(error).__name__)
            return Release("", undecided(self._layer_seconds()))
        finally:
            self._seconds += time.perf_counter()

    def _feed(self, text: str, *, last: bool) -> Release:
        stops, open_from = self._look(text, last)
        until = min(*stops, open_from) if stops else len(self._origins) if last else open_from
        released = self._release(until)
        if self._redaction and self._redaction.broken:
            self._stop(UNMASKABLE, "confidential")
        elif not stops and len(self._held) > MOST_HELD:
            self._stop(CONCEALED, "secret")
        elif not stops and not last:
            self._forget()
            return Release(released)
        return Release(released, self._verdict())

    def _cut(self, text: str) -> Release:
        """End the answer here, with all of it that may be shown."""
        end = self._received + len(text)
        self._findings[REPETITION, end] = Finding(
            REPETITION, "runaway", RiskLevel.MEDIUM, Action.ALLOW, DataClass.PUBLIC, 0, end
        )
        release = self._feed(text, last=True)
        return replace(release, runaway=release.verdict is not None and release.verdict.action < Action.BLOCK)

    def _look(self, text: str, last: bool) -> tuple[list[int], int]:
        """Where matches begin that stop the answer, and where an unfinished one may."""
        folded = fold(text)
        self._origins.extend(self._received + index for index in origins(text)[:-1])
        self._received += len(text)
        self._held += text
        stops = [start for view in self._views for start in self._judge(view, view.take(folded, last=last))]
        return stops, min(view.open_from(self._undecided) for view in self._views)

    def _judge(self, view: _View, matches: Iterable[Match]) -> Iterator[int]:
        """Note what was found; gives where matches begin that stop the answer."""
        for loaded, start, end in matches:
            span = loaded.confirmed(view.folded, start - self._window_start, end - self._window_start)
            if span is not None and view.reads_escapes:
                span = without_halves(self._views[0].folded, *span)
            if span is None or span[0] >= span[1]:
                continue
            self._note(loaded, *span)
            if loaded.rule.action is Action.BLOCK:
                yield span[0]

    def _note(self, loaded: LoadedRule, start: int, end: int) -> None:
        rule = loaded.rule
        found = loaded.finding(self._origins[start], self._origins[end - 1] + 1)
        if self._redaction and rule.action is Action.MASK:
            self._redaction.hide(found.start, found.end, rule.id)
        self._data_class = max(self._data_class, rule.data_class)
        known = self._findings.get((rule.id, found.start))
        if known is None and len(self._findings) >= MOST_FINDINGS and rule.action is not Action.BLOCK:
            return
        if known is None or known.end < found.end:
            self._findings[rule.id, found.start] = found

    def _release(self, until: int) -> str:
        """Let go of the held text before a byte of the window."""
        before = self._origins[until] if until < len(self._origins) else self._received
        count = before - (self._received - len(self._held))
        assert count >= 0, "a match begins in text that has left"
        released, self._held = self._held[:count], self._held[count:]
        self._undecided = until
        return self._redaction.shown(released, before - count) if self._redaction else released

    def _forget(self) -> None:
        """Drop what no match can begin in; one byte more stays, for it decides whether a word begins after it."""
        gone = min(self._undecided, len(self._origins) - self._reach) - 1
        if gone > 0:
            for view in self._views:
                view.forget(gone)
            del self._origins[:gone]
            self._window_start += gone
            self._undecided -= gone

    def _stop(self, rule: str, category: str) -> None:
        """End the answer for what cannot be shown and cannot be hidden."""
        start = self._received - len(self._held)
        self._findings[rule, 0] = Finding(
            rule, category, RiskLevel.CRITICAL, Action.BLOCK, DataClass.CONFIDENTIAL, start, self._received
        )

    def _verdict(self) -> Verdict:
        return merge(self._findings.values(), self._layer_seconds()).at_least(self._data_class)

    def _layer_seconds(self) -> dict[str, float]:
        return {LAYER: self._seconds + time.perf_counter()}
