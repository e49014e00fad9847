"""Conditions of rules, in the Common Expression Language: checked and compiled when the routes file is read."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from cel_expr_python import cel

VARIABLES = {
    "tenant.id": cel.Type.STRING,
    "tenant.tier": cel.Type.STRING,
    "tenant.tags": cel.Type.List(cel.Type.STRING),
    "data_class": cel.Type.STRING,
    "residency": cel.Type.STRING,
    "request.model": cel.Type.STRING,
    "request.embeds": cel.Type.BOOL,
    "request.input_tokens": cel.Type.INT,
    "request.max_output_tokens": cel.Type.INT,
    "request.needs": cel.Type.List(cel.Type.STRING),
    "request.metadata": cel.Type.Map(cel.Type.STRING, cel.Type.STRING),
}
"""What a condition may ask about; docs/routes.md says what each holds."""

_environment = cel.NewEnv(variables=VARIABLES)


class ConditionFailed(Exception):
    """A condition had no answer for this request, such as a key that its metadata lacks."""


class Condition:
    """One compiled condition."""

    def __init__(self, text: str) -> None:
        """Compile; ValueError says what is wrong, and where."""
        try:
            self._expression = _environment.compile(text)
        except RuntimeError as fault:
            raise ValueError(_told(str(fault))) from None
        if self._expression.return_type() != cel.Type.BOOL:
            raise ValueError(f"must be true or false, but is of type {self._expression.return_type().name()}")
        self.variables = frozenset(name for name in VARIABLES if name in text)
        """Those it may ask about."""

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether it is true of these values of its variables.

        Raises:
            ConditionFailed: If there is no telling.
        """
        result = self._expression.eval(data=values)
        if result.type() != cel.Type.BOOL:
            raise ConditionFailed(_told(str(result.value())))
        return bool(result.value())


@cache
def compiled(text: str) -> Condition:
    """The condition of a text; ValueError when there is none."""
    return Condition(text)


def _told(fault: str) -> str:
    """The first line of the compiler's report, without its own names for things."""
    line, _, _ = fault.partition("\n")
    return line.removeprefix("INVALID_ARGUMENT: ").removeprefix("ERROR: ").replace("<input>:", "at ")
