"""Judges an answer as it is spoken.

Guarantee: no character of a match of a rule that stops answers ever leaves, however the text is cut into pieces and
whatever invisible characters or look-alike letters it is written with; text is never re-ordered, lost or doubled.

What is held back is the shortest tail that could still become such a match: mostly nothing, at most
`AnswerRules.longest` visible characters. Hyperscan finds the matches; the `regex` package's partial matching finds the
tail, because Hyperscan does not tell how far an unfinished match has come.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from meshkit.log import get_logger
from services.guard.folding import fold, origins
from services.guard.matching import Compile, Event, ExpressionInvalid, StreamMatcher
from services.guard.openings import Openings
from services.guard.patterns import LAYER, MOST_FINDINGS, LoadedRule
from services.guard.repetition import Repetition
from services.guard.verdict import Action, DataClass, Finding, RiskLevel, Verdict, merge, undecided

log = get_logger()

MOST_HELD = 1024
"""Characters, invisible ones included. An unfinished match that hides in more of them stops the answer."""
CONCEALED = "secret.concealed"
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

    def __init__(self, rules: Sequence[LoadedRule], compiled: Compile) -> None:
        self.rules = [loaded for loaded in rules for _ in loaded.expressions]
        self.matcher = StreamMatcher([expression for loaded in rules for expression in loaded.expressions], compiled)
        stopping = [loaded for loaded in rules if loaded.rule.action is Action.BLOCK]
        self.reach = _longest(rules)
        """Longest match of any rule, in visible characters: how far back a match may begin."""
        self.longest = _longest(stopping)
        """Longest match of a rule that stops answers: the most visible characters held back."""
        self.openings = _openings(stopping)
        """Finds what more text could turn into a match."""

    def watch(self, most_repeated: int = 0) -> AnswerWatch:
        """Start on a new answer that may repeat itself for so many characters; close the watch when done with it."""
        return AnswerWatch(self, most_repeated)


def _longest(rules: Sequence[LoadedRule]) -> int:
    return max((loaded.rule.max_length or 0 for loaded in rules), default=0)


def _openings(stopping: Sequence[LoadedRule]) -> Openings:
    for loaded in stopping:
        try:
            Openings(loaded.expressions)
        except ExpressionInvalid as error:
            raise ExpressionInvalid(f"{loaded.rule.id}: {error}") from error
    return Openings([expression for loaded in stopping for expression in loaded.expressions])


class AnswerWatch:
    """One answer on its way to the client."""

    def __init__(self, rules: AnswerRules, most_repeated: int) -> None:
        self._rules = rules
        self._repetition = Repetition(most_repeated)
        self._stream = rules.matcher.open()
        self._findings: dict[tuple[str, int], Finding] = {}
        self._seconds = 0.0
        self._received = 0
        self._held = ""
        # The folded text from byte `_window_start` on, as far back as a match may begin; `_origins` has the character
        # of the answer that each byte comes from, and bytes from `_undecided` on may belong to an unfinished match.
        self._window = b""
        self._window_start = 0
        self._origins: list[int] = []
        self._undecided = 0

    def close(self) -> None:
        """Let go of the matcher's memory. Closing again does nothing."""
        self._stream.close()

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
        if stops:
            return Release(self._release(min(*stops, open_from)), self._verdict())
        if last:
            return Release(self._release(len(self._window)), self._verdict())
        released = self._release(open_from)
        if len(self._held) > MOST_HELD:
            self._findings[CONCEALED, 0] = self._concealed()
            return Release(released, self._verdict())
        self._forget()
        return Release(released)

    def _cut(self, text: str) -> Release:
        """End the answer here, with all of it that may be shown."""
        end = self._received + len(text)
        self._findings[REPETITION, end] = Finding(
            REPETITION, "runaway", RiskLevel.MEDIUM, Action.ALLOW, DataClass.PUBLIC, 0, end
        )
        release = self._feed(text, last=True)
        return replace(release, runaway=release.verdict is not None and release.verdict.action is Action.ALLOW)

    def _look(self, text: str, last: bool) -> tuple[list[int], int]:
        """Where matches begin that stop the answer, and where an unfinished one may."""
        folded = fold(text)
        self._origins.extend(self._received + index for index in origins(text)[:-1])
        self._received += len(text)
        self._held += text
        self._window += folded
        events = self._stream.scan(folded)
        if last:
            events += self._stream.close()
        return self._judge(events), self._open_from()

    def _judge(self, events: Sequence[Event]) -> list[int]:
        """Note what was found; returns where matches begin that stop the answer."""
        stops = []
        for number, start, end in events:
            loaded = self._rules.rules[number]
            span = loaded.confirmed(self._window, start - self._window_start, end - self._window_start)
            if span is None:
                continue
            self._note(loaded, *span)
            if loaded.rule.action is Action.BLOCK:
                stops.append(span[0])
        return stops

    def _note(self, loaded: LoadedRule, start: int, end: int) -> None:
        rule = loaded.rule
        key = (rule.id, self._origins[start])
        if len(self._findings) < MOST_FINDINGS or rule.action is Action.BLOCK or key in self._findings:
            self._findings[key] = loaded.finding(key[1], self._origins[end - 1] + 1)

    def _open_from(self) -> int:
        """Where in the window an unfinished match of a rule that stops answers begins; its end when there is none."""
        earliest = max(self._undecided, len(self._window) - self._rules.longest)
        return self._rules.openings.start(self._window, earliest)

    def _release(self, until: int) -> str:
        """Let go of the held text before a byte of the window."""
        before = self._origins[until] if until < len(self._window) else self._received
        count = before - (self._received - len(self._held))
        assert count >= 0, "a match begins in text that has left"
        released, self._held = self._held[:count], self._held[count:]
        self._undecided = until
        return released

    def _forget(self) -> None:
        """Drop what no match can begin in; one byte more stays, for it decides whether a word begins after it."""
        gone = min(self._undecided, len(self._window) - self._rules.reach) - 1
        if gone > 0:
            self._window = self._window[gone:]
            del self._origins[:gone]
            self._window_start += gone
            self._undecided -= gone

    def _concealed(self) -> Finding:
        start = self._received - len(self._held)
        return Finding(
            CONCEALED, "secret", RiskLevel.CRITICAL, Action.BLOCK, DataClass.CONFIDENTIAL, start, self._received
        )

    def _verdict(self) -> Verdict:
        return merge(self._findings.values(), self._layer_seconds())

    def _layer_seconds(self) -> dict[str, float]:
        return {LAYER: self._seconds + time.perf_counter()}
