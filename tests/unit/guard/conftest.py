"""The policy that ships, loaded once."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.guard.policy import Policy, load_policy

PACKS = Path("services/guard/packs")


@pytest.fixture(scope="session")
def policy() -> Policy:
    return load_policy(PACKS)
