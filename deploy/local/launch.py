"""One start of the mesh: everything at once, each part as soon as what it stands on answers."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from pathlib import Path

from deploy.local import readiness
from deploy.local.keys import BootstrapFailed, Keys, bootstrap, create_database, kept_keys
from deploy.local.ports import Ports, Slot, assign_ports
from deploy.local.programs import all_programs, shared_environment, write_envoy_configuration
from deploy.local.progress import Progress
from deploy.local.settings import REPOSITORY, LocalSettings
from deploy.local.stores import DATABASE, initialise_postgres, prepare_folders
from deploy.local.supervision import ProcessState, Supervisor, start_supervisor

START_SECONDS = 300
CONVERT_SECONDS = 900
MODEL_SECONDS = 900
WATCH_SECONDS = 0.3
TAIL_LINES = 20
_OK, _REFUSED = 200, 401
_GIVEN_UP = ("BACKOFF", "FATAL", "EXITED")


def parts(settings: LocalSettings) -> list[str]:
    """What is shown while the mesh starts."""
    return ["redis", "postgres", "database", *settings.rooms, "envoy", "edge", "model"]


class StartFailed(Exception):
    """A part of the mesh did not come up."""

    def __init__(self, part: str, reason: str, log: Path | None = None) -> None:
        super().__init__(f"{part}: {reason}")
        self.part = part
        self.reason = reason
        self.log = log

    def tail(self) -> str:
        """The last lines of the part's log."""
        if self.log is None or not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:])


class Launch:
    """The mesh on its way up."""

    def __init__(self, settings: LocalSettings, progress: Progress) -> None:
        self._settings = settings
        self._progress = progress
        self._supervisor: Supervisor
        self._keys_are_new = False
        self.ports: Ports
        self.keys: Keys

    @property
    def url(self) -> str:
        """The edge as a client on this machine reaches it."""
        host = "127.0.0.1" if self._settings.edge_host == "0.0.0.0" else self._settings.edge_host  # noqa: S104
        return f"http://{host}:{self.ports.edge}"

    def begin(self, environment: Mapping[str, str], *, with_us: bool) -> None:
        """Choose ports, write configuration, start the supervisor."""
        prepare_folders(self._settings)
        # One that is left is of a mesh that was killed: its ports may be another mesh's by now.
        self._settings.mesh_env.unlink(missing_ok=True)
        self._put_old_logs_away()
        slot = Slot()
        try:
            self.ports = assign_ports(self._settings, slot)
            write_envoy_configuration(self._settings, self.ports, environment)
            programs = all_programs(self._settings, self.ports)
            variables = shared_environment(self._settings, self.ports)
            self._supervisor = start_supervisor(
                self._settings, programs, variables, with_us=with_us, keep_open=[slot.file]
            )
        finally:
            slot.release()

    def _put_old_logs_away(self) -> None:
        """Keep the logs of the last run, and begin new ones."""
        previous = self._settings.log / "previous"
        previous.mkdir(exist_ok=True)
        for log in self._settings.log.glob("*.log"):
            log.replace(previous / log.name)

    async def all_but_the_model(self) -> None:
        """Return once a request with the demo key passes the edge.

        Raises:
            StartFailed: If a part gives up or takes too long.
        """
        seconds = START_SECONDS + (CONVERT_SECONDS if self._settings.needs_default_model else 0)
        await self._watched(self._parts(), seconds)

    async def model(self) -> None:
        """Return once the chat models are loaded.

        Raises:
            StartFailed: If one never will be.
        """
        if not self._settings.chat_models:
            return self._progress.ready("model", "no chat model asked for")
        self._progress.started("model", "warming")
        probe = readiness.chat_models(self.ports.services["inference"])
        try:
            await self._watched(self._answering("model", probe), MODEL_SECONDS)
        except readiness.ModelFailed as failure:
            raise StartFailed("model", str(failure), self._settings.log / "inference.log") from None

    async def _watched(self, work: Coroutine[None, None, None], seconds: float) -> None:
        """Do `work` while no process gives up; the first failure ends both."""
        try:
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
                watch = group.create_task(self._watch())
                await work
                watch.cancel()
        except ExceptionGroup as failures:
            cause = _cause(failures)
            if isinstance(cause, StartFailed):
                self._progress.failed(cause.part, cause.reason)
            raise cause from None
        except TimeoutError:
            raise StartFailed(self._progress.unfinished(), f"is not ready after {seconds:.0f} s") from None

    async def _parts(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._redis_then_cache())
            group.create_task(self._postgres_then_billing())
            group.create_task(self._model_files_then_inference())
            for name, room in self._settings.rooms.items():
                if room in ("gateway", "router", "guard"):
                    group.create_task(self._room(name))
            group.create_task(self._process("envoy", self._envoy_ready))
        # The last word: a request with a real key passes Envoy, the gateway and what stands behind it.
        self._progress.started("edge")
        await self._answering("edge", self._key_passes)

    async def _key_passes(self) -> bool:
        status = await readiness.status(f"{self.url}/v1/models", self.keys.developer)
        if status == _REFUSED and not self._keys_are_new:
            # Kept keys that have lapsed, or that this database does not know.
            await self._make_keys()
        return status == _OK

    async def _envoy_ready(self) -> bool:
        return await readiness.status(f"http://127.0.0.1:{self.ports.status}/ready") == _OK

    async def _redis_then_cache(self) -> None:
        await self._process("redis", readiness.redis(self._settings.redis_socket))
        await self._room("cache")

    async def _postgres_then_billing(self) -> None:
        self._progress.started("postgres")
        await asyncio.to_thread(initialise_postgres, self._settings)
        await self._process("postgres", readiness.postgres(self._settings.postgres_socket.parent, DATABASE))
        self._progress.started("database")
        await create_database(self._settings)
        # Both migrate, one after the other.
        async with asyncio.TaskGroup() as group:
            group.create_task(self._take_keys())
            group.create_task(self._room("billing"))

    async def _take_keys(self) -> None:
        """Use the kept keys; making them costs seconds that a second start can save."""
        kept = kept_keys(self._settings)
        if kept:
            self.keys = kept
            self._progress.ready("database")
        else:
            await self._make_keys()

    async def _make_keys(self) -> None:
        self._keys_are_new = True
        try:
            self.keys = await bootstrap(self._settings)
        except BootstrapFailed as failure:
            raise StartFailed("database", str(failure)) from None
        self._progress.ready("database")

    async def _model_files_then_inference(self) -> None:
        if self._settings.needs_default_model:
            self._progress.started("model", "starting", "converting the packaged model, about half a minute")
            await self._convert()
        await self._room("inference")

    async def _convert(self) -> None:
        log = self._settings.log / "models.log"
        with log.open("wb") as output:
            step = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "services.inference.models", "--into", str(self._settings.models)),
                cwd=REPOSITORY,
                stdout=output,
                stderr=output,
            )
            try:
                await step.wait()
            finally:
                if step.returncode is None:
                    step.kill()
        if step.returncode:
            raise StartFailed("model", "could not be converted", log)

    async def _room(self, name: str) -> None:
        await self._process(name, readiness.room(self.ports.services[name]))

    async def _process(self, name: str, probe: readiness.Probe) -> None:
        self._progress.started(name)
        await asyncio.to_thread(self._supervisor.start, name)
        await self._answering(name, probe)

    async def _answering(self, name: str, probe: readiness.Probe) -> None:
        await readiness.until(probe)
        self._progress.ready(name)

    async def _watch(self) -> None:
        """Fail with the first process that ends while it should run."""
        while True:
            # A supervisor too busy to answer is asked again.
            with suppress(TimeoutError):
                for process in (await asyncio.to_thread(self._supervisor.processes)).values():
                    if process.state in _GIVEN_UP:
                        raise StartFailed(process.name, _ended(process), process.log)
            await asyncio.sleep(WATCH_SECONDS)


def _ended(process: ProcessState) -> str:
    return f"ended while starting ({process.reason})"


def _cause(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first real failure inside."""
    inner = failures.exceptions[0]
    return _cause(inner) if isinstance(inner, BaseExceptionGroup) else inner
