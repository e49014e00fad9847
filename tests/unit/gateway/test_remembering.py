"""Which answers others may have while the cache cannot say."""

from __future__ import annotations

import pytest

from llmmesh.chat.v1 import chat_pb2
from services.gateway.exchange import Question
from services.gateway.flights import Found
from services.gateway.policies import TenantPolicy
from services.gateway.remembering import may_be_shared
from tests.support.cache_calls import prompt

AWAY = Found(unavailable=True)


def shown(url: str) -> Question:
    """A question about an image."""
    asked = prompt("Is the gate open?")
    asked.messages[0].content.add(image_url=chat_pb2.ImageUrl(url=url))
    return Question(asked)


@pytest.mark.parametrize(
    ("url", "shared"), [("data:image/png;base64,AAAA", True), ("https://cam.example.org/latest.jpg", False)]
)
def test_what_is_seen_at_an_address_is_each_callers_own(url: str, shared: bool) -> None:
    assert may_be_shared(shown(url), TenantPolicy(), AWAY) == shared
