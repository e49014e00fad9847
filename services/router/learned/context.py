"""What a prompt is like, in a few words: the context its deployment is chosen by."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from llmmesh.chat.v1 import chat_pb2
from meshkit.egress import DataClass
from services.router.deployment import Capability
from services.router.needs import Needs

Context: TypeAlias = tuple[int, ...]
"""Indices into FEATURES of what is true of a prompt, ascending."""

LENGTHS = (("short", 100), ("medium", 1_000), ("long", 8_000), ("huge", None))
LANGUAGES = ("russian", "english", "other")
KINDS = ("code", "maths", "question", "other")
TURNS = ("first", "later")
TIERS = ("none", "free", "pro", "enterprise")

FEATURES: tuple[str, ...] = (
    "always",
    *(f"length:{name}" for name, _ in LENGTHS),
    *(f"language:{name}" for name in LANGUAGES),
    *(f"kind:{name}" for name in KINDS),
    *(f"turn:{name}" for name in TURNS),
    *(f"needs:{capability}" for capability in Capability),
    *(f"data:{data_class}" for data_class in DataClass),
    *(f"tier:{name}" for name in TIERS),
)
"""Names that stay readable in the decision log; "always" is the intercept, the others are yes or no."""
_INDEX = {name: index for index, name in enumerate(FEATURES)}

SAMPLE_CHARACTERS = 400
"""Read of the last thing the user says: enough to tell what it is, little enough to cost microseconds."""

_WORD = re.compile(r"\w+")
_CODE_MARKS = ("```", "();", "=> ", "#include", "select *", "def ", "</")
# fmt: off
_CODE_WORDS = frozenset([
    "bash", "c", "cpp", "css", "docker", "golang", "html", "java", "javascript", "json", "kotlin", "python",
    "regex", "rust", "script", "sql", "typescript", "yaml", "код", "кода", "коде", "кодом", "скрипт", "скрипта",
    "функцию", "программу", "питон", "питоне",
])
# fmt: on
_MATHS_MARKS = re.compile(r"\\(?:frac|int|sum|sqrt)|\d ?[-+*/^=] ?\(?\d|\b[a-z] ?= ?-?\d")
# fmt: off
_MATHS_WORDS = frozenset([
    "derivative", "equation", "equations", "integral", "matrix", "probability", "prove", "sqrt", "theorem",
    "вероятность", "вероятности", "интеграл", "интеграла", "матрица", "матрицы", "производную", "уравнение",
    "уравнения", "теорема", "теорему",
])
_QUESTION_WORDS = frozenset([
    "can", "does", "how", "is", "what", "when", "where", "which", "who", "why", "где", "зачем", "как", "какая",
    "какие", "какой", "когда", "кто", "куда", "почему", "сколько", "что",
])
# fmt: on


@dataclass(frozen=True, slots=True)
class Asked:
    """What is known of a request besides its prompt."""

    needs: Needs
    data_class: DataClass
    tier: str = "none"


def context_of(prompt: chat_pb2.ChatPrompt, asked: Asked) -> Context:
    """The context of a chat; asks no model and reads a bounded piece of the text."""
    return indices(_features(prompt, asked))


def indices(names: Iterator[str] | Sequence[str]) -> Context:
    """The context that holds what is named; what no longer is a feature is left out."""
    return tuple(sorted(_INDEX[name] for name in names if name in _INDEX))


def names(context: Context) -> list[str]:
    """What a context says."""
    return [FEATURES[index] for index in context]


def _features(prompt: chat_pb2.ChatPrompt, asked: Asked) -> Iterator[str]:
    said = _last_said(prompt).lower()
    words = _WORD.findall(said)
    yield "always"
    yield f"length:{_length(asked.needs.input_tokens)}"
    yield f"language:{language(words)}"
    yield f"kind:{kind(said, words)}"
    yield f"turn:{'later' if _is_answered(prompt) else 'first'}"
    yield from (f"needs:{capability}" for capability in asked.needs.capabilities)
    yield f"data:{asked.data_class}"
    yield f"tier:{asked.tier}"


def language(words: Sequence[str]) -> str:
    """What most of the words are written in; "english" stands for every Latin script."""
    russian = sum("а" <= word[0] <= "я" or word[0] == "ё" for word in words)
    english = sum("a" <= word[0] <= "z" for word in words)
    if max(russian, english) * 2 <= sum(word[0].isalpha() for word in words):
        return "other"
    return "russian" if russian > english else "english"


def kind(text: str, words: Sequence[str]) -> str:
    """What a text asks for, by its looks; both in lower case."""
    known = frozenset(words)
    if known & _CODE_WORDS or any(mark in text for mark in _CODE_MARKS):
        return "code"
    if known & _MATHS_WORDS or _MATHS_MARKS.search(text):
        return "maths"
    if text.rstrip().endswith("?") or (words and words[0] in _QUESTION_WORDS):
        return "question"
    return "other"


def _length(tokens: int) -> str:
    return next(name for name, most in LENGTHS if most is None or tokens < most)


def _last_said(prompt: chat_pb2.ChatPrompt) -> str:
    """The beginning and the end of the user's last text."""
    for message in reversed(prompt.messages):
        if message.role == chat_pb2.ROLE_USER:
            return _ends(next(filter(None, (part.text for part in message.content)), ""))
    return ""


def _ends(text: str) -> str:
    if len(text) <= SAMPLE_CHARACTERS:
        return text
    half = SAMPLE_CHARACTERS // 2
    return f"{text[:half]}\n{text[-half:]}"


def _is_answered(prompt: chat_pb2.ChatPrompt) -> bool:
    return any(message.role == chat_pb2.ROLE_ASSISTANT for message in prompt.messages)
