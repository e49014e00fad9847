"""What start-up works out about rules, kept on disk so that the next start need not.

Everything is named by the hash of all it was made from (expressions, the library and the processor it was compiled
for, the guard's own code), so a change of any of them finds nothing. A file that is damaged counts as not there.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import hyperscan

from meshkit.log import get_logger
from services.guard.matching import BLOCK, Expression, compile_database

log = get_logger()

DIGEST_BYTES = 32
MOST_FILES = 64
"""The oldest go when there are more: what policies that nobody uses any more have left."""
LIBRARIES = ("confusable-homoglyphs", "hyperscan", "phonenumbers", "regex")


class Kept:
    """A folder of compiled databases and of policies whose own tests have passed; without a folder nothing is kept."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def database(self, expressions: Sequence[Expression], mode: int) -> hyperscan.Database:
        """The compiled expressions, from disk where they are there.

        Raises:
            ExpressionInvalid: If Hyperscan refuses them.
        """
        name = _named("database", platform(), str(mode), *map(repr, expressions))
        if (stored := self._read(name)) is not None and (database := _loaded(stored, mode)) is not None:
            return database
        database = compile_database(expressions, mode)
        self._write(name, hyperscan.dumpb(database))
        return database

    def has_passed(self, policy_version: str) -> bool:
        """Whether these very rules have passed their own tests under this very code."""
        return self._read(_named("passed", policy_version, code())) is not None

    def note_passed(self, policy_version: str) -> None:
        """Remember that they did."""
        self._write(_named("passed", policy_version, code()), b"")

    def _read(self, name: str) -> bytes | None:
        if self._folder is None:
            return None
        try:
            stored = (self._folder / name).read_bytes()
        except OSError:
            return None
        digest, content = stored[:DIGEST_BYTES], stored[DIGEST_BYTES:]
        if hashlib.sha256(content).digest() == digest:
            return content
        log.warning("kept_file_damaged", name=name)
        return None

    def _write(self, name: str, content: bytes) -> None:
        """Write whole or not at all; a folder that cannot be written costs the next start its time, nothing else."""
        if self._folder is None:
            return
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._folder, prefix=".", delete=False) as file:
                file.write(hashlib.sha256(content).digest() + content)
            Path(file.name).replace(self._folder / name)
            _forget_oldest(self._folder)
        except OSError as error:
            log.warning("kept_file_not_written", name=name, error=str(error))


@cache
def platform() -> str:
    """Version of Hyperscan and what it makes use of in this processor, in its own words."""
    return repr(compile_database([Expression(b"a")], BLOCK).info())


@cache
def code() -> str:
    """Hash over the guard's code and the libraries that decide what matches."""
    digest = hashlib.sha256(" ".join(map(importlib.metadata.version, LIBRARIES)).encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _named(kind: str, *parts: str) -> str:
    return f"{kind}-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:32]}"


def _loaded(stored: bytes, mode: int) -> hyperscan.Database | None:
    try:
        database = hyperscan.loadb(stored, mode)
        database.scratch = hyperscan.Scratch(database)
    except hyperscan.error as error:
        log.warning("kept_database_refused", error=str(error))
        return None
    return database


def _forget_oldest(folder: Path) -> None:
    def written(path: Path) -> float:
        return path.stat().st_mtime

    with contextlib.suppress(FileNotFoundError):  # another process forgets too
        for path in sorted(folder.iterdir(), key=written)[:-MOST_FILES]:
            path.unlink()
