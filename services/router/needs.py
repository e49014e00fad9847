"""What a request needs of the deployment that answers it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import orjson

from llmmesh.chat.v1 import chat_pb2
from services.router.deployment import Capability
from services.router.tokens import prompt_tokens, text_tokens

STRUCTURED = ("json_object", "json_schema")
"""No set: what a caller says may be a list, which has no hash."""
USUAL_OUTPUT_TOKENS = 256
"""Length of an answer whose caller set no limit, for comparing prices."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What a request needs; token counts are estimates."""

    capabilities: frozenset[Capability]
    input_tokens: int
    max_output_tokens: int
    """0 when the caller set no limit."""
    embeds: bool = False
    """Whether vectors are asked for, not words."""

    @property
    def least_context_tokens(self) -> int:
        """A context certainly no larger than what the request takes.

        The estimate may be a third too high for plain prose, and a provider knows better: only what surely does
        not fit is kept from it.
        """
        return self.input_tokens * 3 // 4 + max(self.max_output_tokens, 1)

    @property
    def likely_output_tokens(self) -> int:
        """Length of the answer, for comparing prices."""
        if self.embeds:
            return 0
        return self.max_output_tokens or USUAL_OUTPUT_TOKENS


def chat_needs(prompt: chat_pb2.ChatPrompt) -> Needs:
    """What a chat prompt needs."""
    limit = prompt.options.max_output_tokens if prompt.options.HasField("max_output_tokens") else 0
    return Needs(frozenset(_capabilities(prompt)), prompt_tokens(prompt), limit)


def embedding_needs(texts: Sequence[str]) -> Needs:
    """What embedding texts needs: each must fit by itself."""
    return Needs(frozenset(), max(map(text_tokens, texts)), 0, embeds=True)


def _capabilities(prompt: chat_pb2.ChatPrompt) -> Iterator[Capability]:
    options = prompt.options
    forbidden = options.tool_choice_json.strip() == '"none"'
    if (options.tools_json and not forbidden) or "functions" in options.extra_json:
        yield Capability.TOOLS
    if options.response_format_json and _is_structured(options.response_format_json):
        yield Capability.JSON_SCHEMA
    if any(part.HasField("image_url") for message in prompt.messages for part in message.content):
        yield Capability.VISION


def _is_structured(response_format_json: str) -> bool:
    wanted = orjson.loads(response_format_json)
    return isinstance(wanted, dict) and wanted.get("type") in STRUCTURED
