"""Fixtures every suite shares; each plugin starts one real thing."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler.loadscope import LoadScopeScheduling

from tests.support.ports import free_port

_PLUGINS = (
    "tests.support.fix_redis",
    "tests.support.fix_postgres",
    "tests.support.fix_envoy",
    "tests.support.fix_mesh",
)
# How long an example takes says how busy the machine is.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
pytest_plugins = [name for name in _PLUGINS if importlib.util.find_spec(name)]


_TOGETHER = ("mesh", "room/inference")
"""Folders whose tests share one thing that is slow to start: they run in one process. All others go file by file."""


class Together(LoadScopeScheduling):  # type: ignore[misc]
    """Gives a process whole files, and of `_TOGETHER` whole folders. (The base has no types.)"""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::")[0].removeprefix("tests/")
        return next((folder for folder in _TOGETHER if file.startswith(f"{folder}/")), file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together:
    """What shares a slow start is started once. (pytest-xdist's own groups need node ids that can be changed.)"""
    return Together(config, log)


@pytest.fixture(name="free_port")
def a_free_port() -> int:
    """A TCP port nobody listens on."""
    return free_port()
