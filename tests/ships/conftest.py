"""What ships, read as its users' tools read it."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest

from deploy.envoy.catalogue import ROOMS
from meshkit.settings import ServiceSettings
from meshkit.tls import TlsSettings

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def known_settings() -> dict[str, frozenset[str]]:
    """Environment variables every room's config class reads, by room."""
    certificate = {f"LLMMESH_TLS_{name.upper()}" for name in TlsSettings.model_fields}
    return {room: _variables(room) | certificate for room in ROOMS}


def _variables(room: str) -> frozenset[str]:
    module = importlib.import_module(f"services.{room}.config")
    [config] = [
        found
        for _, found in inspect.getmembers(module, inspect.isclass)
        if issubclass(found, ServiceSettings) and found is not ServiceSettings
    ]
    prefix = config.model_config["env_prefix"]
    return frozenset(f"{prefix}{name.upper()}" for name in config.model_fields)
