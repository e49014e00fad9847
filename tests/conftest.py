"""Fixtures every suite shares; each plugin starts one real thing."""

from __future__ import annotations

import importlib.util
import socket
from pathlib import Path

import pytest

_PLUGINS = (
    "tests.support.fix_redis",
    "tests.support.fix_postgres",
    "tests.support.fix_envoy",
    "tests.support.fix_mesh",
)
pytest_plugins = [name for name in _PLUGINS if importlib.util.find_spec(name)]


_TOGETHER = ("mesh", "room/inference")
"""Folders whose tests share one thing that is slow to start: they run in one process. All others go file by file."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tell pytest-xdist what to keep together."""
    here = Path(__file__).parent
    for item in items:
        file = item.path.relative_to(here).as_posix()
        folder = next((folder for folder in _TOGETHER if file.startswith(f"{folder}/")), file)
        item.add_marker(pytest.mark.xdist_group(folder))


@pytest.fixture
def free_port() -> int:
    """A TCP port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
