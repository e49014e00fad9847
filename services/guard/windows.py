"""An answer in windows, each to be judged while the next is spoken: which is next, and what may be shown by then."""

from __future__ import annotations

from dataclasses import dataclass

STEP = 400
"""Characters that are worth a judgement, some hundred tokens."""
BEFORE = 400
"""Characters that are shown with a window although they were judged: what is meant may have begun there."""


@dataclass(frozen=True, slots=True)
class Window:
    """A part of an answer, and where in the answer it begins."""

    text: str
    start: int


class Windows:
    """What of an answer was judged. One window is out at a time, and all that comes meanwhile makes the next."""

    def __init__(self, *, hold: bool) -> None:
        """With `hold`, nothing is shown before it was judged; without, everything is at once."""
        self._hold = hold
        self._text = ""
        self._start = 0
        """Place in the answer of the text that is kept."""
        self._judged = 0
        """Of the kept text, how much was judged."""
        self._out = 0
        """Of the kept text, where the window ends that is out."""

    @property
    def ahead(self) -> int:
        """Characters that nobody has judged."""
        return len(self._text) - self._judged

    def take(self, text: str) -> str:
        """Append a piece of the answer; returns what of it may be shown."""
        self._text += text
        return "" if self._hold else text

    def next(self, *, last: bool) -> Window | None:
        """What to judge now: enough to be worth it, or with `last` all that is left; None for nothing."""
        if self.ahead < (1 if last else STEP):
            return None
        start, self._out = max(self._judged - BEFORE, 0), len(self._text)
        return Window(self._text[start:], self._start + start)

    def passed(self) -> str:
        """The window that is out may be said; returns what may be shown now."""
        shown = self._text[self._judged : self._out] if self._hold else ""
        gone = max(self._out - BEFORE, 0)
        self._text, self._start = self._text[gone:], self._start + gone
        self._judged = self._out = self._out - gone
        return shown

    def unjudged(self) -> str:
        """What was held back for want of a judgement, which will not come."""
        return self._text[self._judged :] if self._hold else ""
