"""Rough token counts, for when nobody gave exact ones."""

from __future__ import annotations

from llmmesh.chat.v1 import chat_pb2

BYTES_PER_TOKEN = 4
"""Of UTF-8: four letters of English, two of Russian, one and a third of Chinese."""
MESSAGE_TOKENS = 4
"""What a chat template adds to each message."""
IMAGE_TOKENS = 512


def text_tokens(text: str) -> int:
    """About how many tokens a text has; at least 1 unless it is empty."""
    return size_tokens(len(text.encode()))


def size_tokens(size_bytes: int) -> int:
    """About how many tokens so many bytes of UTF-8 have."""
    return -(-size_bytes // BYTES_PER_TOKEN)


def prompt_tokens(prompt: chat_pb2.ChatPrompt) -> int:
    """About how many tokens a prompt has, its tools included."""
    options = prompt.options
    tools = sum(text_tokens(tool) for tool in options.tools_json)
    return tools + text_tokens(options.response_format_json) + sum(map(_message_tokens, prompt.messages))


def _message_tokens(message: chat_pb2.ChatMessage) -> int:
    calls = sum(text_tokens(call.name) + text_tokens(call.arguments) for call in message.tool_calls)
    return MESSAGE_TOKENS + calls + sum(map(_part_tokens, message.content))


def _part_tokens(part: chat_pb2.ContentPart) -> int:
    match part.WhichOneof("part"):
        case "image_url":
            return IMAGE_TOKENS
        case "raw_json":
            return text_tokens(part.raw_json)
        case _:
            return text_tokens(part.text)
