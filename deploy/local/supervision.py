"""The supervisor: restarts what dies, takes orders over a unix socket, and is never outlived by what it runs."""

from __future__ import annotations

import os
import resource
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, cast
from xmlrpc.client import Fault, ServerProxy, Transport

from deploy.local import reaper
from deploy.local.programs import DRAIN_SECONDS, Program
from deploy.local.settings import REPOSITORY, LocalSettings, SettingsInvalid

START_SECONDS = 15
STOP_SECONDS = DRAIN_SECONDS + 10
ANSWER_SECONDS = STOP_SECONDS + 10
"""An order to stop is answered when it is done."""
SIGNAL_SECONDS = 2
MOST_FILES = 65_536
GONE = (OSError, HTTPException, Fault)
"""What asking a supervisor raises that is not there, or is about to end."""
_EXIT_CONFIG = 78
_STOP_SIGNALS = {"postgres": "INT"}
"""SIGINT is Postgres' fast shutdown: it ends sessions instead of waiting for them."""


@dataclass(frozen=True, slots=True)
class ProcessState:
    """One process as the supervisor sees it."""

    name: str
    group: str
    state: str
    """RUNNING, STARTING, BACKOFF, FATAL, EXITED, STOPPED, STOPPING."""
    pid: int
    """0 while it is down."""
    uptime_seconds: int
    reason: str
    log: Path

    @property
    def full_name(self) -> str:
        """What the supervisor calls it."""
        return f"{self.group}:{self.name}"


class _UnixConnection(HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("supervisor", timeout=ANSWER_SECONDS)
        self._path = path

    def connect(self) -> None:
        # Known before it is connected, so that it is closed when nobody answers.
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(ANSWER_SECONDS)
        self.sock.connect(str(self._path))


class _UnixTransport(Transport):
    """XML-RPC over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: Any) -> HTTPConnection:
        connection = _UnixConnection(self._path)
        self._connection = host, connection
        return connection


class Supervisor:
    """A running supervisor, reached through its socket."""

    def __init__(self, settings: LocalSettings, process: subprocess.Popen[bytes] | None = None) -> None:
        self._settings = settings
        self.process = process
        """Set where this very process has started it."""

    def answers(self) -> bool:
        """Whether it is there."""
        try:
            self._ask("getState")
        except GONE:
            return False
        return True

    def processes(self) -> dict[str, ProcessState]:
        """Every process of the mesh by name."""
        found = [self._state(info) for info in self._ask("getAllProcessInfo") if info["group"] != "reaper"]
        return {process.name: process for process in found}

    def start(self, name: str) -> None:
        """Start a process that is down; returns before it is up."""
        self._ask("startProcess", self.processes()[name].full_name, False)

    def stop(self, name: str) -> None:
        """Stop a process in order, and leave it down."""
        self._end([self.processes()[name]])

    def kill(self, name: str) -> None:
        """Kill a process at once; it comes back by itself."""
        self._ask("signalProcess", self.processes()[name].full_name, "KILL")

    def shut_down(self) -> None:
        """Stop every process, edge first and stores last, then the supervisor; returns when all are gone."""
        pid = self._ask("getPID")
        processes = self.processes().values()
        for group in ("edge", "rooms", "stores"):
            self._end([process for process in processes if process.group == group])
        self._ask("shutdown")
        until = time.monotonic() + 3 * STOP_SECONDS
        while _runs(pid) and time.monotonic() < until:
            time.sleep(0.05)
        for left, _ in reaper.members(session=pid):
            with suppress(ProcessLookupError):
                os.kill(left, signal.SIGKILL)

    def _end(self, processes: Sequence[ProcessState]) -> None:
        """Stop processes together; returns when they are gone."""
        names = {process.name for process in processes}
        for process in processes:
            if process.state in ("STARTING", "RUNNING", "BACKOFF"):
                with suppress(Fault):
                    self._ask("stopProcess", process.full_name, False)
        again = time.monotonic() + SIGNAL_SECONDS
        while left := [each for each in self.processes().values() if each.name in names and each.state == "STOPPING"]:
            time.sleep(0.1)
            if time.monotonic() > again:
                again += SIGNAL_SECONDS
                self._remind(left)

    def _remind(self, processes: Sequence[ProcessState]) -> None:
        """Signal once more: a process that was just being made has not heard the first signal."""
        for process in processes:
            with suppress(Fault):
                self._ask("signalProcess", process.full_name, _STOP_SIGNALS.get(process.name, "TERM"))

    def _ask(self, order: str, *values: object) -> Any:
        with ServerProxy("http://supervisor", transport=_UnixTransport(self._settings.supervisor_socket)) as proxy:
            return getattr(cast(Any, proxy).supervisor, order)(*values)

    def _state(self, info: Mapping[str, Any]) -> ProcessState:
        return ProcessState(
            name=info["name"],
            group=info["group"],
            state=info["statename"],
            pid=info["pid"],
            uptime_seconds=max(0, info["now"] - info["start"]) if info["pid"] else 0,
            reason=info["spawnerr"] or f"exit status {info['exitstatus']}",
            log=self._settings.log / f"{info['name']}.log",
        )


def _runs(pid: int) -> bool:
    """Whether a process exists and is more than an exit status nobody has read."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def start_supervisor(
    settings: LocalSettings,
    programs: Sequence[Program],
    environment: Mapping[str, str],
    *,
    with_us: bool,
    keep_open: Sequence[int] = (),
) -> Supervisor:
    """Start a supervisor whose processes are all down.

    `with_us` ends it when this process dies; it holds the files in `keep_open` as long as it lives.

    Raises:
        SettingsInvalid: If this machine has no `setpriv`.
        TimeoutError: If it does not answer.
    """
    if not shutil.which("setpriv"):
        raise SettingsInvalid("There is no setpriv here: install util-linux")
    configuration = settings.run / "supervisord.conf"
    configuration.write_text(_configuration(settings, programs))
    leash = ["setpriv", "--pdeathsig", "TERM", "--"] if with_us else []
    with (settings.log / "supervisord.out").open("wb") as output:
        process = subprocess.Popen(  # noqa: S603
            [*leash, sys.executable, "-m", "supervisor.supervisord", "-n", "-c", str(configuration)],
            cwd=REPOSITORY,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            pass_fds=keep_open,
        )
    supervisor = Supervisor(settings, process)
    until = time.monotonic() + START_SECONDS
    while not supervisor.answers():
        if time.monotonic() > until:
            raise TimeoutError(f"the supervisor does not answer: see {settings.log / 'supervisord.log'}")
        time.sleep(0.02)
    return supervisor


def _configuration(settings: LocalSettings, programs: Sequence[Program]) -> str:
    groups: dict[str, list[str]] = {}
    for program in programs:
        groups.setdefault(program.group, []).append(program.name)
    sections = [
        _section("unix_http_server", file=settings.supervisor_socket, chmod="0700"),
        _section("supervisord", **_daemon(settings)),
        _section(
            "rpcinterface:supervisor",
            **{"supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"},
        ),
        *(_section(f"program:{program.name}", **_program(settings, program)) for program in programs),
        *(
            _section(f"group:{name}", programs=",".join(members), priority=place)
            for place, (name, members) in enumerate(groups.items(), 1)
        ),
        _section("eventlistener:reaper", **_reaper(settings)),
    ]
    return "\n".join(sections)


def _daemon(settings: LocalSettings) -> dict[str, object]:
    hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    options: dict[str, object] = {
        "logfile": settings.log / "supervisord.log",
        "pidfile": settings.run / "supervisord.pid",
        "minfds": min(MOST_FILES, hard_limit) if hard_limit > 0 else MOST_FILES,
        "loglevel": "info",
    }
    return options | ({"user": "root"} if os.getuid() == 0 else {})


def _program(settings: LocalSettings, program: Program) -> dict[str, object]:
    stop_signal = _STOP_SIGNALS.get(program.name, "TERM")
    return {
        "command": shlex.join(_leashed(program.command, stop_signal)),
        "directory": REPOSITORY,
        "autostart": "false",
        # A process that says its settings are wrong will not get better by trying again.
        "autorestart": "unexpected",
        "exitcodes": _EXIT_CONFIG,
        "startsecs": 1,
        "startretries": 1000,
        "stopsignal": stop_signal,
        "stopwaitsecs": STOP_SECONDS,
        "killasgroup": "true",
        "redirect_stderr": "true",
        "stdout_logfile": settings.log / f"{program.name}.log",
        "stdout_logfile_maxbytes": "20MB",
        "stdout_logfile_backups": 2,
    }


def _leashed(command: Iterable[str], death_signal: str) -> list[str]:
    """A command that ends with the supervisor, even when that is killed."""
    parts = list(command)
    if parts[0] == "setpriv":
        return ["setpriv", "--pdeathsig", death_signal, *parts[1:]]
    return ["setpriv", "--pdeathsig", death_signal, "--", *parts]


def _reaper(settings: LocalSettings) -> dict[str, object]:
    script = Path(__file__).with_name("reaper.py")
    return {
        "command": shlex.join([sys.executable, "-I", "-S", str(script)]),
        "events": "PROCESS_STATE_EXITED,PROCESS_STATE_STOPPED,PROCESS_STATE_BACKOFF",
        "startsecs": 0,
        "stderr_logfile": settings.log / "reaper.log",
    }


def _section(title: str, **options: object) -> str:
    lines = [f"{name} = {str(value).replace('%', '%%')}" for name, value in options.items()]
    return "\n".join([f"[{title}]", *lines, ""])
