"""What observers hear of a chat that is over."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from meshkit.deadline import enter_deadline
from meshkit.errors import ProviderUnavailable
from meshkit.identity import Identity
from services.router.needs import Needs
from services.router.observing import Chat, Observation
from services.router.preferences import Caller
from services.router.ranking import Demand
from services.router.routing import RouteEvent


async def unanswered() -> AsyncGenerator[RouteEvent, None]:
    raise ProviderUnavailable("Nobody answered.", retry_after_seconds=1)
    yield


@pytest.mark.parametrize(("seconds_left", "left"), [(0, True), (60, False), (None, False)])
async def test_a_chat_that_ends_with_its_callers_deadline_counts_as_one_whose_caller_left(limits, seconds_left, left):
    chat, heard = Chat(Identity("acme"), Demand("m", Needs(frozenset(), 1, 1), limits("a"), Caller())), []
    enter_deadline(seconds_left)
    with pytest.raises(ProviderUnavailable):
        await anext(Observation({}, [heard.append]).through(chat, unanswered()))
    assert [each.left for each in heard] == [left]
