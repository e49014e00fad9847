"""What a scripted model answers, before it is put on any wire."""

from __future__ import annotations

import itertools
import math
import random
import re
import time
from dataclasses import dataclass

from tests.support.provider_script import Script

TOKEN = re.compile(r"\s*\S+")
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Asked:
    """A chat request, whichever way it was written."""

    model: str
    prompt: str
    """All the text of the conversation."""
    last: str
    """The text of its last message."""
    tool: str
    """The tool that is to be called; empty for an answer in words."""
    limit: int
    """Most tokens of the answer; 0 for no limit."""
    streams: bool
    tells_usage: bool


@dataclass(frozen=True, slots=True)
class Figures:
    """Token counts as OpenAI has them: `cached` is part of `prompt`, `reasoning` of `completion`."""

    prompt: int
    cached: int
    completion: int
    reasoning: int
    total: int


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model says."""

    model: str
    pieces: list[str]
    thoughts: list[str]
    tool: str
    finish_reason: str
    """In OpenAI's words."""
    usage: Figures
    id: str
    created: int


def tokens(text: str) -> list[str]:
    """A text in the pieces a stream sends, one word each."""
    return TOKEN.findall(text)


def reply_to(asked: Asked, script: Script) -> Reply:
    """Answer with the script's text, repeated up to its length, or with a call of the tool asked for."""
    pieces = tokens(script.tool_arguments if asked.tool else asked.last if script.echo else _said(asked, script))
    if script.reply_tokens and pieces:
        pieces = list(itertools.islice(itertools.cycle(pieces), script.reply_tokens))
    limit = len(pieces) if script.ignore_limit else asked.limit or len(pieces)
    finish = script.finish_reason or ("length" if len(pieces) > limit else "tool_calls" if asked.tool else "stop")
    pieces = pieces[:limit]
    thoughts = tokens(script.reasoning)
    return Reply(
        model=asked.model,
        pieces=pieces,
        thoughts=thoughts,
        tool=asked.tool,
        finish_reason=finish,
        usage=_figures(len(tokens(asked.prompt)), script, len(pieces) + len(thoughts), len(thoughts)),
        id=f"chatcmpl-{next(_numbers):08d}",
        created=int(time.time()),
    )


def _said(asked: Asked, script: Script) -> str:
    return script.second_reply if script.second_reply and script.reply in asked.prompt else script.reply


def vector(text: str, size: int) -> list[float]:
    """A vector of length 1, the same for the same text."""
    numbers = random.Random(text)
    values = [numbers.gauss() for _ in range(size)]
    length = math.hypot(*values)
    return [value / length for value in values]


def _figures(prompt: int, script: Script, completion: int, reasoning: int) -> Figures:
    if script.contradict_usage:
        return Figures(prompt, prompt + 5, completion, completion + 5, 1)
    return Figures(prompt, min(script.cached_tokens, prompt), completion, reasoning, prompt + completion)
