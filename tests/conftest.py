"""Fixtures every suite shares; each plugin starts one real thing."""

from __future__ import annotations

import importlib.util
import socket

import pytest

_PLUGINS = (
    "tests.support.fix_redis",
    "tests.support.fix_postgres",
    "tests.support.fix_envoy",
    "tests.support.fix_mesh",
)
pytest_plugins = [name for name in _PLUGINS if importlib.util.find_spec(name)]


@pytest.fixture
def free_port() -> int:
    """A TCP port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
