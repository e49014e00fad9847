"""The sets of attacks and innocent prompts, each template or situation in one part only.

A template has slots; a situation is told in one or several ways, and stands at the same place in both languages; a pair
tells one in both, and so does a shape, of which there are attacks and innocent prompts. Of every five of a family three
are for training, one for setting thresholds, one for measuring; the words of the slots are shared out alike.
"""

from __future__ import annotations

import base64
import codecs
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

FOLDER = Path(__file__).parent / "prompts"
LANGUAGES = ("en", "ru")
PARTS = ("train", "train", "train", "calibration", "held_out")
"""The classifier is fitted on both of the first, its thresholds set by cross-validation over their situations."""
MOST_FILLINGS = 4
SLOT = re.compile(r"\{([a-z]+)(?:\|([a-z_0-9]+))?\}")
WRITTEN_IN_CODE = re.compile(r"\{=(.*?)\|([a-z_0-9]+)\}")
HOMOGLYPHS = str.maketrans("aceopxyAEOPXукенхаросі", "асеорхуАЕОРХykehxapoci")
LEET = str.maketrans("oieast", "013457")
CYRILLIC = "абвгдежзийклмнопрстуфхцчшщъыьэюя"
SOUNDS = "a b v g d e zh z i j k l m n o p r s t u f h c ch sh sch ' y ' e ju ja"
LATIN = dict(zip(CYRILLIC, SOUNDS.split(), strict=True))


def _wide(text: str) -> str:
    return "".join(chr(ord(letter) + 0xFEE0) if "!" <= letter <= "~" else letter for letter in text)


CODES: Mapping[str, Callable[[str], str]] = {
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "hex": lambda text: text.encode().hex(),
    "rot13": lambda text: codecs.encode(text, "rot13"),
    "reversed": lambda text: text[::-1],
    "mirrored": lambda text: " ".join(word[::-1] for word in text.split()),
    "leet": lambda text: text.translate(LEET),
    "spaced": lambda text: "   ".join(" ".join(word) for word in text.split()),
    "homoglyphs": lambda text: text.translate(HOMOGLYPHS),
    "zero_width": lambda text: "\u200b".join(text),
    "percent": lambda text: "".join(f"%{byte:02X}" for byte in text.encode()) if text.isascii() else quote(text),
    "fullwidth": _wide,
    "entities": lambda text: "".join(f"&#{ord(letter)};" for letter in text),
    "escapes": lambda text: "".join(f"\\u{ord(letter):04x}" for letter in text),
    "translit": lambda text: "".join(LATIN.get(letter, letter) for letter in text.lower()),
}


Families = dict[str, Any]
Told = tuple[str, int, str]
"""Family, number of the situation in it, text."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One prompt and what is known of it."""

    text: str
    is_attack: bool
    language: str
    family: str
    part: str
    situation: str
    """Shared by what tells of the same, in both languages."""


def load(folder: Path = FOLDER) -> list[Sample]:
    """All prompts of all templates, situations, pairs and shapes."""
    told_once = [*_each(folder / "templates", _from_templates), *_each(folder / "situations", _from_situations)]
    return [*told_once, *_from_pairs(folder / "pairs"), *_from_pairs(folder / "shapes")]


def _each(folder: Path, read: Callable[[Families], Iterator[Told]]) -> Iterator[Sample]:
    for path in sorted(folder.glob("*.yaml")):
        kind, language = path.stem.split("_")
        for family, number, text in read(yaml.load(path.read_text("utf-8"), yaml.CSafeLoader)):
            situation = f"{folder.name}.{kind}.{family}.{number}"
            yield Sample(text, kind == "attacks", language, family, _part_of(number), situation)


def _from_pairs(folder: Path) -> Iterator[Sample]:
    for path in sorted(folder.glob("*.yaml")):
        kind = path.stem.partition("_")[0]
        for family, pairs in yaml.load(path.read_text("utf-8"), yaml.CSafeLoader).items():
            for number, pair in enumerate(pairs):
                situation = f"{folder.name}.{path.stem}.{family}.{number}"
                for language in LANGUAGES:
                    text = _in_code(pair[language])
                    yield Sample(text, kind == "attacks", language, family, _part_of(number), situation)


def _from_situations(families: Families) -> Iterator[Told]:
    for family, situations in families.items():
        for number, told in enumerate(situations):
            for text in [told] if isinstance(told, str) else told:
                yield family, number, _in_code(text)


def _in_code(text: str) -> str:
    return WRITTEN_IN_CODE.sub(lambda found: CODES[found[2]](found[1]), text)


def _from_templates(families: Families) -> Iterator[Told]:
    slots: dict[str, list[str]] = families.pop("slots")
    for family, templates in families.items():
        for number, template in enumerate(templates):
            for text in _filled(template, _words_of(_part_of(number), slots)):
                yield family, number, text


def _part_of(number: int) -> str:
    return PARTS[number % len(PARTS)]


def _words_of(part: str, slots: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    return {
        name: [str(word) for number, word in enumerate(words) if _part_of(number) == part]
        for name, words in slots.items()
    }


def _filled(template: str, slots: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """The template with different words in its slots; without slots, as it is."""
    names = list(dict.fromkeys(name for name, _ in SLOT.findall(template)))
    longest = max((len(slots[name]) for name in names), default=1)
    for turn in range(min(MOST_FILLINGS, longest)):
        words = {name: slots[name][(turn + shift) % len(slots[name])] for shift, name in enumerate(names)}
        filled = SLOT.sub(partial(_written, words), template)
        yield filled.replace("{{", "{").replace("}}", "}")


def _written(words: Mapping[str, str], slot: re.Match[str]) -> str:
    word = words[slot[1]]
    return CODES[slot[2]](word) if slot[2] else word
