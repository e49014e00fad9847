"""Tells when an answer says the same thing again and again, as models do that have lost their way."""

from __future__ import annotations

STEP = 256
"""Characters between two looks."""
FEWEST_TIMES = 5


class Repetition:
    """The end of an answer, looked at now and then."""

    def __init__(self, most_characters: int) -> None:
        """Bound how many characters may be nothing but repeats; 0 looks at nothing."""
        self._most = most_characters
        self._reach = most_characters + most_characters // (FEWEST_TIMES - 1)
        self._tail = ""
        self._unseen = 0

    def runs_away(self, text: str) -> bool:
        """Take the next piece; says whether all that was said last is one piece, five times or more."""
        if not self._most:
            return False
        self._tail = (self._tail + text)[-self._reach :]
        self._unseen += len(text)
        if self._unseen < STEP:
            return False
        self._unseen = 0
        # The last characters stand somewhat earlier too: what lies between is what is repeated.
        return len(self._tail) > self._most and self._tail.find(self._tail[-self._most :], 0, -1) >= 0
