"""What several tests of the verification read with."""

from __future__ import annotations

import pytest

from services.cache.verification.reader import Reader


@pytest.fixture(scope="session")
def reader() -> Reader:
    """Reads questions as the checks see them."""
    return Reader()
