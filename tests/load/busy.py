"""CPU that processes use."""

from __future__ import annotations

from collections.abc import Mapping

import psutil


class Busy:
    """Counts from when it is made; children count with their parents."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = dict(pids)
        self._before = self._seconds()

    def milliseconds_per(self, items: int) -> str:
        """CPU per item since the start, by process, dearest first."""
        spent = {name: (now - self._before[name]) * 1000 / items for name, now in self._seconds().items()}
        parts = sorted(((ms, name) for name, ms in spent.items() if ms >= 0.01), reverse=True)
        return f"{sum(spent.values()):.2f} ms (" + ", ".join(f"{name} {ms:.2f}" for ms, name in parts) + ")"

    def _seconds(self) -> dict[str, float]:
        return {name: sum(map(_seconds_of, _family(pid))) for name, pid in self._pids.items()}


def _family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def _seconds_of(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
