"""Runs a room as a process: settings, logs, signals."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

import uvloop
from pydantic import ValidationError
from pydantic_settings import SettingsError

from meshkit.log import configure_logging, get_logger
from meshkit.settings import ServiceSettings

Config = TypeVar("Config", bound=ServiceSettings)

EXIT_CONFIG = 78
"""sysexits.h EX_CONFIG: a supervisor need not try again."""


def serve(room: str, settings: type[Config], app: Callable[[Config], AbstractAsyncContextManager[int]]) -> None:
    """Run a room until SIGTERM or SIGINT, then drain. Exits with 78, all mistakes listed, on bad settings."""
    config = _load(settings)
    configure_logging(room, config.log_level)
    uvloop.run(_until_signal(app(config)))


def _load(settings: type[Config]) -> Config:
    try:
        return settings()
    except (ValidationError, SettingsError) as error:
        prefix = settings.model_config.get("env_prefix", "")
        for name, mistake in _mistakes(settings, error):
            print(f"{prefix}{name.upper()}: {mistake}", file=sys.stderr)
        sys.exit(EXIT_CONFIG)


def _mistakes(settings: type[Config], error: ValidationError | SettingsError) -> Iterator[tuple[str, str]]:
    """What is wrong with which settings; a value that should be JSON and is not is told alone, before all others."""
    if isinstance(error, ValidationError):
        for fault in error.errors():
            yield "_".join(str(part) for part in fault["loc"]), fault["msg"]
    else:
        # The library names the field in its text and nowhere else.
        yield next((name for name in settings.model_fields if f'"{name}"' in str(error)), ""), "must be JSON"


async def _until_signal(app: AbstractAsyncContextManager[int]) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    log = get_logger()
    async with app:
        # What start-up made lives as long as the process: keep the collector from walking it again and again.
        gc.collect()
        gc.freeze()
        await stopped.wait()
        log.info("draining")
    log.info("stopped")
