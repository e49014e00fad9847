"""Finds secrets where they must not be: in logs, and in what the stores wrote to disk."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

MEANT_TO_HOLD_KEYS = frozenset({"tokens.json", "signing-key.json", "audit-key.json"})
"""Files that are secrets themselves, readable by their owner alone."""


def leaks(folders: Iterable[Path], secrets: Iterable[str]) -> dict[str, list[str]]:
    """The files below `folders` that hold one of the secrets in clear, and which."""
    wanted = sorted(set(secrets))
    found = {}
    for path in (path for folder in folders for path in folder.rglob("*")):
        if not path.is_file() or path.name in MEANT_TO_HOLD_KEYS:
            continue
        content = path.read_bytes()
        held = [secret for secret in wanted if secret.encode() in content]
        if held:
            found[str(path)] = held
    return found
