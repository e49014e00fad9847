"""Values that the routes file names and does not hold: of environment variables and of files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

VARIABLE, FILE = "env:", "file:"
REFERENCE = r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:/[A-Za-z0-9._/-]+)$"
LARGEST_BYTES = 64 * 1024

_NAMED_FILE = re.compile(r"\bfile:(/[A-Za-z0-9._/-]+)")


def resolved(value: str, environment: Mapping[str, str]) -> str:
    """A value of the routes file, read from where it says if it is a reference; empty when nothing usable is there."""
    if value.startswith(VARIABLE):
        return environment.get(value.removeprefix(VARIABLE), "")
    if value.startswith(FILE):
        return _line(Path(value.removeprefix(FILE)))
    return value


def unset(value: str) -> str:
    """What is wrong with a reference that resolves to nothing."""
    if value.startswith(FILE):
        return f"{value.removeprefix(FILE)} is not a file of one printable line; write it"
    return f"{value.removeprefix(VARIABLE)} is not set; set it"


def named_files(routes: Path) -> list[Path]:
    """The files that a routes file names, good or bad, there or not."""
    try:
        text = routes.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return []
    return [Path(name) for name in _NAMED_FILE.findall(text)]


def _line(path: Path) -> str:
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST_BYTES + 1).decode().strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return text if text.isprintable() and len(text) <= LARGEST_BYTES else ""
