"""The sets of attacks and innocent prompts: templates with slots, each template in one part only.

Of every five templates of a family three are for training, one for setting thresholds, one for measuring; the words of
the slots are shared out alike.
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
"""The classifier is fitted on both of the first, its thresholds set by cross-validation over their templates."""
MOST_FILLINGS = 4
SLOT = re.compile(r"\{([a-z]+)(?:\|([a-z_0-9]+))?\}")
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


@dataclass(frozen=True, slots=True)
class Sample:
    """One prompt and what is known of it."""

    text: str
    is_attack: bool
    language: str
    family: str
    part: str
    template: str


def load(folder: Path = FOLDER) -> list[Sample]:
    """All prompts of all templates."""
    return [
        sample
        for kind in ("attacks", "benign")
        for language in LANGUAGES
        for sample in _samples(folder, kind, language)
    ]


def _samples(folder: Path, kind: str, language: str) -> Iterator[Sample]:
    families: dict[str, Any] = yaml.safe_load((folder / f"{kind}_{language}.yaml").read_text("utf-8"))
    slots: dict[str, list[str]] = families.pop("slots")
    for family, templates in families.items():
        for number, template in enumerate(templates):
            part = PARTS[number % len(PARTS)]
            for text in _filled(template, _words_of(part, slots)):
                yield Sample(text, kind == "attacks", language, family, part, f"{kind}.{language}.{family}.{number}")


def _words_of(part: str, slots: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    return {
        name: [str(word) for number, word in enumerate(words) if PARTS[number % len(PARTS)] == part]
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
