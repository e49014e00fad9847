"""Whether a request has left us: one that has not cost nothing, whoever was meant to answer it."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True)
class Dispatch:
    """One request on its way to a provider."""

    held: bool = False
    """Whether it is known to wait here: for its turn, a token or a connection. Unknown counts as sent."""


_current: ContextVar[Dispatch] = ContextVar("dispatch")


def current_dispatch() -> Dispatch:
    """Of the request that this task makes; one that nobody asks about outside an attempt."""
    return _current.get(None) or Dispatch()


def enter_dispatch(dispatch: Dispatch) -> None:
    """Have `dispatch` follow what this task asks for from now on."""
    _current.set(dispatch)
