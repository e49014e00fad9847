"""Reads rule packs from YAML; every mistake of every pack is found at once."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from meshkit.reloading import FilesInvalid
from services.guard.rules import Rule


class PacksInvalid(FilesInvalid):
    """Packs that cannot be loaded; `mistakes` names each place and what is wrong there."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("rule packs cannot be loaded:\n" + "\n".join(mistakes), mistakes)


class Pack(BaseModel):
    """The contents of one YAML file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    words: dict[str, str] = {}
    """Alternatives, apart by " | ", that phrases of this pack name in braces; later ones may use earlier ones."""
    unless: tuple[str, ...] = ()
    """Phrases that excuse a match of any rule of this pack."""
    rules: Annotated[tuple[Rule, ...], Field(min_length=1)]
    """What to look for."""


@dataclass(frozen=True, slots=True)
class PackFile:
    """A pack and where it came from."""

    name: str
    pack: Pack


def pack_files(directory: Path) -> list[Path]:
    """The packs of a directory, in the order of their names."""
    return sorted(directory.glob("*.yaml"))


def read_packs(directory: Path) -> list[PackFile]:
    """Read every *.yaml of a directory, in the order of their names.

    Raises:
        PacksInvalid: If a file cannot be read, is not YAML or not a pack, or two rules share an id.
    """
    mistakes: list[str] = []
    files: list[PackFile] = []
    for path in pack_files(directory):
        try:
            files.append(PackFile(path.name, Pack.model_validate(yaml.load(path.read_text("utf-8"), yaml.CSafeLoader))))
        except yaml.YAMLError as error:
            mistakes.append(f"{path.name}: not YAML: {error}")
        except ValidationError as error:
            mistakes.extend(f"{path.name}: {_place(fault['loc'])}: {fault['msg']}" for fault in error.errors())
        except (OSError, ValueError) as error:  # gone or forbidden; not UTF-8, or a date that does not exist
            mistakes.append(f"{path.name}: cannot be read: {error}")
    if not files and not mistakes:
        mistakes.append(f"{directory}: no packs (*.yaml)")
    counts = Counter(rule.id for file in files for rule in file.pack.rules)
    mistakes.extend(f"{rule_id}: {count} rules have this id" for rule_id, count in counts.items() if count > 1)
    if mistakes:
        raise PacksInvalid(mistakes)
    return files


def _place(location: tuple[Any, ...]) -> str:
    return ".".join(str(step) for step in location) or "file"
