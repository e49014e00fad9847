"""How many tokens: a bound to reserve money by, and a fair guess to bill by when nobody counted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from llmmesh.chat.v1 import chat_pb2

PROMPT_TOKENS = 64
"""What chat templates add once, default system prompts included."""
MESSAGE_TOKENS = 16
"""What chat templates add to each message."""
IMAGE_TOKENS = 2000
"""A large image at high detail; providers count images each their own way."""
LARGEST_COUNT = 2**31 - 1


def prompt_token_bound(prompt: chat_pb2.ChatPrompt) -> int:
    """A number of tokens that no tokenizer exceeds for the prompt's text.

    A byte-level tokenizer never makes more tokens than there are UTF-8 bytes, so bytes are the bound: about four times
    the real count of English prose, less than twice that of Russian under an English vocabulary. The excess is held
    for the length of one request only.
    """
    count = PROMPT_TOKENS + _options_bytes(prompt.options)
    for message in prompt.messages:
        count += MESSAGE_TOKENS + sum(_part_bound(part) for part in message.content)
        count += sum(_bytes(call.name) + _bytes(call.arguments) for call in message.tool_calls)
    return min(count, LARGEST_COUNT)


def text_token_bound(texts: Iterable[str]) -> int:
    """The same bound for bare texts."""
    return min(sum(MESSAGE_TOKENS + _bytes(text) for text in texts), LARGEST_COUNT)


def estimated_tokens(text: str) -> int:
    """A fair guess: four ASCII characters a token, two of any other script."""
    ascii_count = len(text) if text.isascii() else sum(char.isascii() for char in text)
    return math.ceil(ascii_count / 4 + (len(text) - ascii_count) / 2)


def estimated_prompt_tokens(prompt: chat_pb2.ChatPrompt) -> int:
    """A fair guess for a whole prompt: its texts, tools and form of answer, and a few tokens a message."""
    texts = (*prompt_texts(prompt), *prompt.options.tools_json, prompt.options.response_format_json)
    return sum(map(estimated_tokens, texts)) + 4 * len(prompt.messages) + IMAGE_TOKENS * image_count(prompt)


def image_count(prompt: chat_pb2.ChatPrompt) -> int:
    """How many images a prompt holds."""
    return sum(part.HasField("image_url") for message in prompt.messages for part in message.content)


def prompt_texts(prompt: chat_pb2.ChatPrompt) -> Iterator[str]:
    """Every text of a conversation, in order; images are left out."""
    for message in prompt.messages:
        for part in message.content:
            if part.text or part.raw_json:
                yield part.text or part.raw_json
        for call in message.tool_calls:
            yield call.arguments


def _part_bound(part: chat_pb2.ContentPart) -> int:
    return IMAGE_TOKENS if part.HasField("image_url") else _bytes(part.text) + _bytes(part.raw_json)


def _options_bytes(options: chat_pb2.GenerationOptions) -> int:
    extra = sum(_bytes(value) for value in options.extra_json.values())
    return sum(_bytes(tool) for tool in options.tools_json) + _bytes(options.response_format_json) + extra


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
