"""Fixtures of the contract suites."""

from __future__ import annotations

import pytest

from tests.support.provider_cases import Authority, private_authority


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A private certificate authority, and a certificate for the servers of this run."""
    return private_authority(tmp_path_factory.mktemp("authority"))
