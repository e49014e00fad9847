"""What a model can be doing."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class ModelState(enum.Enum):
    """Whether a model answers."""

    WARMING = enum.auto()
    READY = enum.auto()
    FAILED = enum.auto()


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One line of the list of models."""

    name: str
    state: ModelState
    context_tokens: int
    dimensions: int = 0
    """Length of the vectors; 0 for chat models."""
    detail: str = ""
    """Why it does not answer."""
