"""Puts placeholders where rules hide parts of an answer that passes in pieces.

What is shown depends on the answer and the rules alone, never on how it was cut.
"""

from __future__ import annotations

from services.guard.masking import kind

_LETTER = -1
"""Of an escape the letter is still to come, and who knows how much after it."""


class Redaction:
    """What is hidden of one answer. Hidden characters side by side become one placeholder."""

    def __init__(self, *, json: bool) -> None:
        """With `json` the answer stays JSON: what cannot be hidden inside a string of it breaks it off."""
        self.broken = False
        """Whether the answer has to end, for something cannot be hidden; nothing may be shown any more."""
        self._json = _JsonPlace() if json else None
        self._ahead: list[tuple[int, int, str]] = []
        self._hidden_until = -1

    def hide(self, start: int, end: int, rule: str) -> None:
        """Hide characters of the answer that have not been shown."""
        self._ahead.append((start, -end, rule))

    def shown(self, text: str, start: int) -> str:
        """What may be shown of a piece that begins at `start`; pieces come in order."""
        end = start + len(text)
        here = sorted(span for span in self._ahead if span[0] < end)
        self._ahead = [span for span in self._ahead if span[0] >= end]
        pieces: list[str] = []
        place = start
        for first, minus_last, rule in here:
            if first > self._hidden_until:
                place = self._passed(text, start, place, first, pieces)
                if not self.broken and self._may_begin():
                    pieces.append(f"[{kind(rule)}]")
            self._hidden_until = max(self._hidden_until, -minus_last)
        self._passed(text, start, place, end, pieces)
        return "".join(pieces)

    def _passed(self, text: str, start: int, place: int, until: int, pieces: list[str]) -> int:
        """Go on to a place of the answer: hidden characters first, clear ones after them; returns the place."""
        clear_from = min(max(place, self._hidden_until), until)
        hidden, clear = text[place - start : clear_from - start], text[clear_from - start : until - start]
        if self._json is not None:
            resumes = bool(clear) and clear_from == self._hidden_until
            self.broken |= not self._json.hides(hidden) or (resumes and self._json.is_escaping)
            self._json.reads(clear)
        if not self.broken:
            pieces.append(clear)
        return until

    def _may_begin(self) -> bool:
        """Whether something may be hidden from here on."""
        if self._json is not None:
            self.broken |= not self._json.in_string or self._json.is_escaping
        return not self.broken


class _JsonPlace:
    """Where in a JSON text one is, as far as strings go."""

    def __init__(self) -> None:
        self.in_string = False
        self._escape_left = 0

    @property
    def is_escaping(self) -> bool:
        """Whether one is inside an escape, such as that of a letter by its number."""
        return self._escape_left != 0

    def reads(self, text: str) -> None:
        """Go on over text that stays."""
        for character in text:
            self._step(character)

    def hides(self, text: str) -> bool:
        """Go on over text that goes; says whether all of it stands in the string that it begins in."""
        for character in text:
            if not self.in_string:
                return False
            self._step(character)
        return self.in_string or not text

    def _step(self, character: str) -> None:
        if self._escape_left == _LETTER:
            self._escape_left = 4 if character == "u" else 0
        elif self._escape_left:
            self._escape_left -= 1
        elif character == "\\" and self.in_string:
            self._escape_left = _LETTER
        elif character == '"':
            self.in_string = not self.in_string
