"""The policy that ships, loaded once."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.guard.patterns import PatternScanner
from services.guard.policy import Policy, load_policy
from services.guard.verdict import Direction

PACKS = Path("services/guard/packs")


@pytest.fixture(scope="session")
def policy() -> Policy:
    return load_policy(PACKS)


@pytest.fixture
def scanner(policy: Policy) -> PatternScanner:
    """Of prompts."""
    return policy.scanners[Direction.INPUT]
