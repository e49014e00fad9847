"""Fixtures of the router's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import pytest

from tests.support.router_room import RouterRoom, router_room

MakeRoom = Callable[..., AbstractAsyncContextManager[RouterRoom]]


@pytest.fixture
def make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeRoom:
    """Run a router with routes of one's own: see `router_room`."""
    monkeypatch.setenv("SCRIPTED_KEY", "sk-scripted")
    return partial(router_room, tmp_path / "routes.yaml")


@pytest.fixture
async def room(make_room: MakeRoom) -> AsyncIterator[RouterRoom]:
    """A router with two clouds, of which the one named "cheap" comes first."""
    async with make_room() as running_room:
        yield running_room
