"""What a scripted provider is told, and what it has counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

NEVER = -1


def knob(default: Any, help_text: str) -> Any:
    """A field of Script with its line of --help."""
    return field(default=default, metadata={"help": help_text})


@dataclass(slots=True)
class Script:
    """What the provider does; every knob may be turned while it runs."""

    reply: str = knob("The quick brown fox jumps over the lazy dog.", "what it says, one word a token")
    second_reply: str = knob("", "what it says once its reply stands in the conversation")
    echo: bool = knob(False, "say the last message back instead")
    reply_tokens: int = knob(0, "repeat the reply up to this many tokens; 0 says it once")
    ignore_limit: bool = knob(False, "say more than it was allowed to")
    tool_arguments: str = knob('{"city": "Paris", "days": 3}', "arguments of the call it makes when tools are sent")
    headers_ms: float = knob(0.0, "wait before the first byte of the reply")
    ttft_ms: float = knob(0.0, "wait between the role-only chunk and the first token")
    tokens_per_second: float = knob(0.0, "speed after the first token; 0 is as fast as it can")
    cached_tokens: int = knob(0, "prompt tokens it says it read from its cache")
    contradict_usage: bool = knob(False, "tell figures that cannot all be true")
    reasoning: str = knob("", "what it thinks before it speaks, one word a token")
    finish_reason: str = knob("", "why it says it ended, in OpenAI's words; by default what is true")
    dimensions: int = knob(8, "length of its vectors")
    most_texts: int = knob(0, "texts it embeds at once; 0 for any number")
    authorization: str = knob("", "Authorization header it wants; by default it takes any, or the token it issued")
    token_seconds: float = knob(1800.0, "life of the tokens it issues")
    token_status: int = knob(200, "status of its token endpoint")
    token_ms: float = knob(0.0, "wait before it issues a token")
    fail_status: int = knob(500, "status of a failure")
    fail_next: int = knob(0, "fail this many requests; -1 fails all")
    fail_rate: float = knob(0.0, "share of requests that fail, 0 to 1")
    error_message: str = knob("scripted failure", "text of a failure")
    error_code: str = knob("", "OpenAI's `code` of a failure")
    retry_after: str = knob("", "Retry-After of a failure")
    too_long: bool = knob(False, "say that the prompt does not fit, in the provider's own way")
    html: bool = knob(False, "answer with a web page and status 200")
    cut_after_chunks: int = knob(NEVER, "close the connection after this many tokens; -1 never")
    stall_after_chunks: int = knob(NEVER, "say nothing more after this many tokens, or after a verbatim body; -1 never")
    malformed_chunk: int = knob(NEVER, "send broken JSON after this many tokens; -1 never")
    error_chunk: int = knob(NEVER, "send an error object inside the stream after this many tokens; -1 never")
    omit_usage: bool = knob(False, "never say what was used")
    omit_done: bool = knob(False, "end the stream without [DONE]")
    piece_bytes: int = knob(0, "send every stream in pieces of so many bytes; 0 sends chunks whole")
    verbatim: str = knob("", "send exactly this as the body of every stream")
    verbatim_bytes: int = knob(0, "send the verbatim body in pieces of so many bytes; 0 sends it whole")


@dataclass(slots=True)
class Counters:
    """What has happened since the start or the last reset."""

    requests: int = 0
    tokens_issued: int = 0
    failed: int = 0
    open_streams: int = 0
    finished_streams: int = 0
    aborted_streams: int = 0
    connections: int = 0
    open_connections: int = 0


def condition(text: str) -> Callable[[Counters], bool]:
    """Read "name==number" or "name>=number" as a condition on the counters."""
    exact = "==" in text
    name, _, number = text.partition("==" if exact else ">=")
    if name not in Counters.__slots__ or not number.isdigit():
        raise ValueError(f"wait={text!r}: write NAME==NUMBER or NAME>=NUMBER with one of {Counters.__slots__}")
    wanted = int(number)
    return lambda now: getattr(now, name) == wanted if exact else getattr(now, name) >= wanted
