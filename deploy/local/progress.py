"""What a person sees while the mesh starts: one line per part, with seconds."""

from __future__ import annotations

import time
from collections.abc import Iterable
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

_STYLES = {"waiting": "dim", "starting": "yellow", "warming": "yellow", "ready": "green", "failed": "bold red"}


class _Part:
    """One line."""

    def __init__(self) -> None:
        self.state = "waiting"
        self.note = ""
        self.since: float | None = None
        self.took: float | None = None

    @property
    def seconds(self) -> float:
        """How long the part has taken, or took."""
        if self.took is not None:
            return self.took
        return 0 if self.since is None else time.monotonic() - self.since


class Progress:
    """A live table on a terminal, plain lines anywhere else."""

    def __init__(self, names: Iterable[str], console: Console) -> None:
        self._parts = {name: _Part() for name in names}
        self._console = console
        self._live = Live(console=console, get_renderable=self._table, refresh_per_second=4, transient=False)

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def started(self, name: str, state: str = "starting", note: str = "") -> None:
        """Say that a part is on its way; the clock starts with the first word about it."""
        part = self._parts[name]
        part.since = part.since or time.monotonic()
        part.state, part.note = state, note

    def ready(self, name: str, note: str = "") -> None:
        """Say that a part answers."""
        self._finished(name, "ready", note)

    def failed(self, name: str, reason: str) -> None:
        """Say that a part will not come."""
        self._finished(name, "failed", reason)

    def unfinished(self) -> str:
        """The first part that is still on its way."""
        return next((name for name, part in self._parts.items() if part.state in ("starting", "warming")), "mesh")

    def _finished(self, name: str, state: str, note: str) -> None:
        part = self._parts[name]
        part.took = part.seconds
        part.state, part.note = state, note
        if not self._console.is_terminal:
            self._console.print(f"{name:<10} {state:<8} {part.took:5.1f} s  {note}".rstrip(), highlight=False)

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for name, part in self._parts.items():
            seconds = f"{part.seconds:5.1f} s" if part.seconds else ""
            table.add_row(name, Text(part.state, style=_STYLES[part.state]), seconds, part.note)
        return table
