"""Words that are parts of names: Russian ones in any grammatical form, English ones of the census.

Both are read into flat arrays: `pymorphy3` itself takes twice the memory, for lemmas, predictions of unknown words and
probabilities, which names do not need.
"""

from __future__ import annotations

import importlib.resources
import json
import struct
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pymorphy3_dicts_ru  # type: ignore[import-untyped]  # ships no types
from numpy.typing import NDArray
from pymorphy3.dawg import WordsDawg  # type: ignore[import-untyped]  # ships no types

KINDS = ("Name", "Patr", "Surn")
"""First name, patronymic and surname, as OpenCorpora calls them."""
SAME_LETTERS = {"е": "ё"}
"""A dotted letter that may be written without its dots."""
CENSUS_LINE = np.dtype({"names": ["name"], "formats": ["S15"], "itemsize": 35})
"""Lines of equal length, of which the name comes first."""


class RussianWords:
    """The dictionary of OpenCorpora, as far as it says what may be part of a name."""

    def __init__(self) -> None:
        folder = Path(pymorphy3_dicts_ru.get_path())
        self._words = WordsDawg().load(str(folder / "words.dawg"))
        self._substitutes = self._words.compile_replaces(SAME_LETTERS)
        tags: list[str] = json.loads((folder / "gramtab-opencorpora-int.json").read_text("utf-8"))
        kinds = {number: found for number, tag in enumerate(tags) if (found := [kind for kind in KINDS if kind in tag])}
        self._kinds = {
            number: [kinds.get(tag, []) for tag in paradigm]
            for number, paradigm in enumerate(_paradigms((folder / "paradigms.array").read_bytes()))
            if not kinds.keys().isdisjoint(paradigm)
        }

    def kinds(self, word: str) -> frozenset[str]:
        """Which of first name, patronymic and surname a form of a word may be; nothing for most words."""
        found: set[str] = set()
        for forms in self._words.similar_item_values(word.lower(), self._substitutes):
            for paradigm, form in forms:
                if paradigm in self._kinds:
                    found.update(self._kinds[paradigm][form])
        return frozenset(found)


def _paradigms(stored: bytes) -> Iterator[array[int]]:
    """The tags of every paradigm's forms. A paradigm is its forms' suffixes, then their tags, then their prefixes."""
    (count,) = struct.unpack_from("<H", stored)
    place = 2
    for _ in range(count):
        (length,) = struct.unpack_from("<H", stored, place)
        third = length // 3 * 2
        yield array("H", stored[place + 2 + third : place + 2 + 2 * third])
        place += 2 + 2 * length


class EnglishNames:
    """Names of the census of the United States of 1990: the commonest of a list, or all, in one sorted array."""

    def __init__(self, lists: Sequence[str], most: int | None = None, *, without: Sequence[str] = ()) -> None:
        """`lists` are the census's own: "male.first", "female.first", "all.last"."""
        names = np.concatenate([_census(name)[:most] for name in lists])
        self._sorted = np.unique(names[~np.isin(names, [_padded(name) for name in without])])

    def __contains__(self, upper: str) -> bool:
        wanted = np.bytes_(_padded(upper))
        place = int(self._sorted.searchsorted(wanted))
        return place < len(self._sorted) and bool(self._sorted[place] == wanted)


def _census(name: str) -> NDArray[np.bytes_]:
    """Names in upper case, padded with spaces, the commonest first."""
    stored = (importlib.resources.files("names") / f"dist.{name}").read_bytes()
    names: NDArray[np.bytes_] = np.frombuffer(stored, CENSUS_LINE)["name"]
    return names


def _padded(name: str) -> bytes:
    return name.encode("ascii", "replace").ljust(CENSUS_LINE["name"].itemsize)
