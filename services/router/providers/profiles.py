"""What endpoints that speak OpenAI's API want otherwise than OpenAI."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

OPENAI_TEXTS = 2048


@dataclass(frozen=True, slots=True)
class Profile:
    """How one provider understands the API; the defaults are OpenAI's own."""

    withheld: frozenset[str] = frozenset()
    """Fields of a chat request it does not take: they are left out."""
    stream_options: Mapping[str, bool] = field(default_factory=lambda: {"include_usage": True})
    """How it is asked for token counts; empty where it may not be asked."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Sent with every request, whatever the routes say."""
    texts_per_request: int = OPENAI_TEXTS
    """Most texts it embeds at once."""
    thinking_switch: str = ""
    """Field that turns thinking on or off; OpenAI's reasoning_effort is translated into it."""
    salts_cache: bool = False
    """Takes cache_salt: without it a tenant could feel in the speed which prompts of others are cached."""
    health_path: str = ""
    """Path at the root that answers 200 while it can be called."""


PROFILES = {
    "openai": Profile(),
    "dashscope": Profile(texts_per_request=10, thinking_switch="enable_thinking"),
    "yandex": Profile(
        withheld=frozenset({"seed", "store", "audio", "presence_penalty", "frequency_penalty", "user", "stop"}),
        stream_options={},
        headers={"x-data-logging-enabled": "false"},
        texts_per_request=1,
    ),
    "cloudru": Profile(),
    "vllm": Profile(
        stream_options={"include_usage": True, "continuous_usage_stats": True},
        salts_cache=True,
        health_path="/health",
    ),
}
