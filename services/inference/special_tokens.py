"""Special tokens, such as those that end a turn: in what people say they are text like any other."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Any

THOUGHT = ("<think>", "</think>")
"""Marks of what a model thinks, by which templates take an earlier answer apart."""


class SpecialTokens:
    """The special tokens of one model, which its tokenizer would see in a message as well as in the chat template."""

    def __init__(self, tokens: Iterable[str]) -> None:
        self._begin = re.compile(f"(?={any_of(sorted(filter(None, tokens)))}).", re.DOTALL)

    @classmethod
    def among(cls, added: Iterable[Any], template: str) -> SpecialTokens:
        """Those of a tokenizer's added tokens that are special, or that the chat template writes.

        White space is none: some tokenizers have tokens for line breaks and for rows of spaces, and every template
        has such in it.
        """
        return cls(
            token.content
            for token in added
            if token.content.strip() and (token.special or (token.content in template and token.content not in THOUGHT))
        )

    def apart(self, value: Any) -> Any:
        """The value with a space after the first character of each special token, in keys of objects as well.

        Raises:
            RecursionError: If it is nested hundreds of levels deep.
        """
        if isinstance(value, str):
            return self._begin.sub(r"\g<0> ", value)
        if isinstance(value, dict):
            return {self.apart(key): self.apart(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self.apart(each) for each in value]
        return value


def any_of(words: Collection[str]) -> str:
    """A pattern for any of the words. What they share is tried once: some models have hundreds of special tokens."""
    if not words:
        return "(?!)"
    if "" in words:
        return ""
    tails: dict[str, list[str]] = {}
    for word in words:
        tails.setdefault(word[0], []).append(word[1:])
    return f"(?:{'|'.join(re.escape(first) + any_of(rest) for first, rest in tails.items())})"
