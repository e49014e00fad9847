"""Filters of lists of budgets."""

from __future__ import annotations

from typing import Any

import pytest

from llmmesh.billing.v1 import budgets_pb2
from meshkit.identity import acting_as
from tests.support.billing_room import ADMIN, Room, refusal


@pytest.mark.parametrize("field", ["team_id", "key_id"])
async def test_a_filter_that_nobody_can_be_called_is_named(room: Room, field: str) -> None:
    caller = await room.tenant(f"filters-{field.replace('_', '-')}")
    fields: dict[str, Any] = {"tenant_id": caller.tenant_id, field: "a\0b"}
    with acting_as(ADMIN):
        listing = room.budgets.ListBudgets(budgets_pb2.ListBudgetsRequest(**fields))
        assert await refusal(listing) == ("FIELD_INVALID", field)
