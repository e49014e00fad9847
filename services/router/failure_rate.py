"""How many calls of the last while failed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class FailureRate:
    """Counts over a window, in two halves: the older is forgotten whole, so between half and all of it is counted."""

    window_seconds: float
    _half: int = 0
    _older: tuple[int, int] = (0, 0)
    _newer: tuple[int, int] = (0, 0)

    def count(self, now: float, *, failed: bool) -> None:
        """Count one call."""
        self._move_to(now)
        calls, failures = self._newer
        self._newer = calls + 1, failures + failed

    def counted(self, now: float) -> tuple[int, int]:
        """Calls, and how many of them failed."""
        self._move_to(now)
        return self._older[0] + self._newer[0], self._older[1] + self._newer[1]

    def _move_to(self, now: float) -> None:
        half = int(now / (self.window_seconds / 2))
        if half == self._half:
            return
        self._older = self._newer if half == self._half + 1 else (0, 0)
        self._newer = (0, 0)
        self._half = half
