"""Has a tenant's rules tried by another process, which their expressions may break."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from meshkit.errors import FieldInvalid, GuardUnavailable

Words: TypeAlias = Mapping[str, Any]
"""A rule as packs write it."""
TRIAL_SECONDS = 30.0
"""Of the clock; the process itself bounds the time of its processor."""
TOO_HARD = "takes too long or too much memory to compile: fewer repeats inside repeats, and shorter ones"


class Trials:
    """One trial at a time."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def tried(self, rules: Sequence[Words]) -> list[Words]:
        """The rules as they are to be kept.

        Raises:
            FieldInvalid: If any of them cannot be used, naming the field.
            GuardUnavailable: If no trial was possible.
        """
        if not rules:
            return []
        async with self._turn:
            said = await _said(json.dumps(rules).encode())
        last = said[-1] if said else {}
        if "rules" in last:
            return list(last["rules"])
        if "field" in last:
            raise FieldInvalid(last["field"], last["told"])
        if "at" in last:
            raise FieldInvalid(last["at"], TOO_HARD)
        raise GuardUnavailable("Rules cannot be tried right now: retry in a moment.", retry_after_seconds=2)


async def _said(rules: bytes) -> list[dict[str, Any]]:
    """What the trial said until it ended, or was ended."""
    try:
        output = await asyncio.to_thread(_trial_output, rules)
    except subprocess.TimeoutExpired:
        return []
    return [json.loads(line) for line in output.splitlines() if line.endswith(b"}")]


def _trial_output(rules: bytes) -> bytes:
    # Not by the event loop: uvloop forks, and what gRPC does in a fork may end the child before it begins.
    command = [sys.executable, "-m", "services.guard.trial"]
    return subprocess.run(command, input=rules, stdout=subprocess.PIPE, timeout=TRIAL_SECONDS, check=False).stdout  # noqa: S603 - our own module
