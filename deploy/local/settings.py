"""What a person can choose about a mesh on this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.envoy.catalogue import ROOMS

REPOSITORY = Path(__file__).parents[2]
DEFAULT_MODEL = "smollm2-135m"
MOST_GATEWAYS = 16
USUAL_GATEWAYS = min(4, os.cpu_count() or 1)
"""A gateway is one event loop, which is one processor's work; every answer passes through one."""
LONGEST_SOCKET_PATH = 107
"""sun_path of unix(7), its closing zero left out."""


class SettingsInvalid(Exception):
    """The mesh cannot be started like this; the message says what to change."""


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """Read from `LLMMESH_*` variables, see docs/running.md."""

    var: Path
    """All state: `run`, `log`, `data`."""
    edge_host: str
    edge_port: int
    """0 takes any free port."""
    routes: Path
    prices: Path
    models: Path
    """Folder of chat models."""
    issuers: Path | None
    """Issuers whose access tokens the edge takes beside our own keys; None takes none."""
    chat_models: str
    """`name=path` pairs as the inference room reads them; empty runs embeddings alone."""
    gateways: int
    """Processes of the gateway, among which Envoy shares the requests."""

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> LocalSettings:
        """Take what is set, and the usual for the rest.

        Raises:
            SettingsInvalid: If a value cannot be used.
        """
        var = _folder(environment.get("LLMMESH_VAR"), "var")
        models = _folder(environment.get("LLMMESH_MODELS_DIR"), "var/models")
        settings = cls(
            var=var,
            edge_host=environment.get("LLMMESH_HOST", "127.0.0.1"),
            edge_port=_port(environment.get("LLMMESH_PORT", "8080")),
            routes=_folder(environment.get("LLMMESH_ROUTES"), "deploy/local/routes.yaml"),
            prices=_folder(environment.get("LLMMESH_PRICES"), "deploy/local/prices.yaml"),
            models=models,
            issuers=Path(environment["LLMMESH_ISSUERS"]) if environment.get("LLMMESH_ISSUERS") else None,
            chat_models=_chat_models(environment.get("LLMMESH_LOCAL_MODELS", DEFAULT_MODEL), models),
            gateways=_count(environment, "LLMMESH_GATEWAYS", usual=USUAL_GATEWAYS, most=MOST_GATEWAYS),
        )
        settings.check()
        return settings

    def check(self) -> None:
        """Find what would fail later, out of sight.

        Raises:
            SettingsInvalid: If a file is missing or a path too long.
        """
        for name, path in (("LLMMESH_ROUTES", self.routes), ("LLMMESH_PRICES", self.prices)):
            if not path.is_file():
                raise SettingsInvalid(f"{name}: there is no file {path}")
        if len(str(self.postgres_socket)) > LONGEST_SOCKET_PATH:
            raise SettingsInvalid(f"LLMMESH_VAR: {self.var} is too long for unix sockets below it")

    @property
    def rooms(self) -> dict[str, str]:
        """The room of every process that serves one, by the name of the process: `gateway`, `gateway-2`, ..."""
        more = {f"gateway-{number}": "gateway" for number in range(2, self.gateways + 1)}
        return {**{room: room for room in ROOMS}, **more}

    @property
    def run(self) -> Path:
        """Sockets, generated configuration, `mesh.env`."""
        return self.var / "run"

    @property
    def log(self) -> Path:
        """One file per process."""
        return self.var / "log"

    @property
    def data(self) -> Path:
        """What outlives a stop."""
        return self.var / "data"

    @property
    def cache(self) -> Path:
        """What a start leaves so that the next one is quicker; may be deleted."""
        return self.var / "cache"

    @property
    def supervisor_socket(self) -> Path:
        """Where the supervisor takes orders."""
        return self.run / "supervisor.sock"

    @property
    def redis_socket(self) -> Path:
        """Where Redis listens."""
        return self.run / "redis.sock"

    @property
    def postgres_socket(self) -> Path:
        """Where Postgres listens."""
        return self.run / "postgres" / ".s.PGSQL.5432"

    @property
    def tokens(self) -> Path:
        """The demo tenant's keys, made at the first start."""
        return self.data / "tokens.json"

    @property
    def mesh_env(self) -> Path:
        """How others find this mesh."""
        return self.run / "mesh.env"

    @property
    def needs_default_model(self) -> bool:
        """Whether the packaged model is wanted and not converted yet."""
        folder = self.models / DEFAULT_MODEL
        return str(folder) in self.chat_models and not (folder / "origin.json").exists()


def _folder(given: str | None, usual: str) -> Path:
    return Path(given).absolute() if given else REPOSITORY / usual


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise SettingsInvalid(f"LLMMESH_PORT: {text!r} is not a port")
    return int(text)


def _count(environment: Mapping[str, str], name: str, *, usual: int, most: int) -> int:
    text = environment.get(name, str(usual))
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise SettingsInvalid(f"{name}: {text!r} is not a number from 1 to {most}")
    return int(text)


def _chat_models(text: str, models: Path) -> str:
    """Complete bare names to `name=path`; "none" is nothing."""
    names = [name.strip() for name in text.split(",") if name.strip() and name.strip() != "none"]
    return ",".join(name if "=" in name else f"{name}={models / name}" for name in names)
