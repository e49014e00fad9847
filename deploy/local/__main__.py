"""Runs the mesh on this machine: `python -m deploy.local up | run | status | down`."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import signal
import sys
from collections.abc import Sequence

from deploy.local.settings import LocalSettings, SettingsInvalid
from deploy.local.supervision import Supervisor


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what was asked; 0 when it worked."""
    asked = _parser().parse_args(arguments)
    # A terminated command cleans up like an interrupted one.
    # A shell that starts us in the background has SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        return int(asked.action(LocalSettings.read(os.environ), asked))
    except SettingsInvalid as mistake:
        return _say_error(str(mistake))
    except KeyboardInterrupt:
        return 130


def _up(settings: LocalSettings, asked: argparse.Namespace) -> int:
    from deploy.local.session import up

    return asyncio.run(up(settings, wait_for_model=not asked.without_model_wait))


def _run(settings: LocalSettings, _asked: argparse.Namespace) -> int:
    from deploy.local.session import run

    return run(settings)


def _down(settings: LocalSettings, _asked: argparse.Namespace) -> int:
    from deploy.local.shutdown import stop

    sys.stdout.write("stopped\n" if stop(settings) else "nothing was running\n")
    return 0


def _status(settings: LocalSettings, asked: argparse.Namespace) -> int:
    supervisor = Supervisor(settings)
    if not supervisor.answers():
        return _say_error("nothing is running")
    processes = supervisor.processes()
    if asked.json:
        table = {name: {**dataclasses.asdict(process), "log": str(process.log)} for name, process in processes.items()}
        sys.stdout.write(json.dumps(table) + "\n")
        return 0
    for process in processes.values():
        sys.stdout.write(f"{process.name:<10} {process.state:<9} pid {process.pid:<7} {process.uptime_seconds} s\n")
    return 0


def _order(settings: LocalSettings, asked: argparse.Namespace) -> int:
    """Kill, stop or start one process."""
    supervisor = Supervisor(settings)
    if not supervisor.answers():
        return _say_error("nothing is running")
    names = list(supervisor.processes())
    if asked.name not in names:
        return _say_error(f"there is no {asked.name!r}, only {', '.join(names)}")
    getattr(supervisor, asked.command)(asked.name)
    return 0


def _say_error(text: str) -> int:
    sys.stderr.write(f"{text}\n")
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.local", description=__doc__, epilog=_VARIABLES)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start in the background; returns when everything is ready")
    up.add_argument("--without-model-wait", action="store_true", help="return while the chat model is still loading")
    up.set_defaults(action=_up)
    commands.add_parser("run", help="start in the foreground; Ctrl-C stops everything").set_defaults(action=_run)
    commands.add_parser("down", help="stop everything; data stays").set_defaults(action=_down)
    status = commands.add_parser("status", help="say what runs")
    status.add_argument("--json", action="store_true", help="as JSON, with process ids and logs")
    status.set_defaults(action=_status)
    orders = {"kill": "kill -9 one process; it comes back", "stop": "stop one process", "start": "start one process"}
    for name, text in orders.items():
        order = commands.add_parser(name, help=text)
        order.add_argument("name", help="redis, postgres, envoy or a service")
        order.set_defaults(action=_order)
    return parser


_VARIABLES = "Variables: LLMMESH_PORT, LLMMESH_HOST, LLMMESH_VAR, LLMMESH_ROUTES, LLMMESH_PRICES, LLMMESH_ISSUERS, \
LLMMESH_MODELS_DIR, LLMMESH_LOCAL_MODELS, LLMMESH_GATEWAYS; see docs/running.md."


if __name__ == "__main__":
    sys.exit(main())
