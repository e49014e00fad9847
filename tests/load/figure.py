"""One line of a benchmark's table."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console

console = Console(width=120)


@dataclass(frozen=True, slots=True)
class Figure:
    """What was seen, beside its goal."""

    name: str
    value: float
    unit: str
    goal: str
    reached: bool | None
    """None for a figure without a goal."""
    detail: str = ""


def at_most(name: str, value: float, unit: str, goal: float, detail: str = "") -> Figure:
    """A figure that should be small."""
    return Figure(name, round(value, 2), unit, f"<= {goal:g}", value <= goal, detail)


def at_least(name: str, value: float, unit: str, goal: float, detail: str = "") -> Figure:
    """A figure that should be large."""
    return Figure(name, round(value, 2), unit, f">= {goal:g}", value >= goal, detail)
