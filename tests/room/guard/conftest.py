"""A real guard with the packs that ship."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from llmmesh.guard.v1.guard_pb2_grpc import GuardServiceStub
from meshkit.client import connect
from meshkit.identity import Identity, acting_as
from services.guard.app import guard
from services.guard.config import GuardConfig

LONGEST_CHARACTERS = 100_000


@pytest.fixture(scope="session")
async def stub() -> AsyncIterator[Any]:
    config = GuardConfig(
        listen="127.0.0.1:0",
        metrics_listen="",
        drain_seconds=0,
        longest_text_characters=LONGEST_CHARACTERS,
        longest_answer_characters=LONGEST_CHARACTERS,
    )
    with acting_as(Identity("acme", "key-1", frozenset({"developer"}), "req-1")):
        async with guard(config) as port, connect(f"127.0.0.1:{port}", GuardServiceStub, wait_seconds=5) as stub:
            yield stub
