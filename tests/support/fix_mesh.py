"""The whole mesh, started by the same command as a user's: real Envoy, stores, services and model.

Two scripted providers stand in for clouds: `first` is cheaper, `second` takes over. The chat model of the mesh's own
loads beside the tests; `real_model` waits for it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from openai import AsyncOpenAI

from tests.support.leaks import leaks
from tests.support.scripted_issuer import AUDIENCE, ISSUER, ScriptedIssuer, scripted_issuer
from tests.support.scripted_provider import ScriptedProvider, scripted_provider

ROUTES = Path(__file__).parents[1] / "mesh" / "routes.yaml"
PRICES = Path(__file__).parents[1] / "mesh" / "prices.yaml"
BUDGET_MICROS = 1_000_000_000
# Tests break providers on purpose; a breaker that stays open would carry one test's fault into the next.
QUICK = {
    # Tests break the gateway, and look at its metrics: they must know which. Two are in test_replicas.
    "LLMMESH_GATEWAYS": "1",
    "LLMMESH_ROUTER_BREAKER_OPEN_SECONDS": "0.05",
    "LLMMESH_ROUTER_BREAKER_SUCCESSES": "1",
    "LLMMESH_ROUTER_BREAKER_RETURN_PERCENTS": "[]",
    "LLMMESH_BILLING_AUDIT_CHECKPOINT_SECONDS": "0.5",
    # No Llama Guard, but of its architecture: its verdicts have the form, not the sense. Only those who ask get them.
    "LLMMESH_GUARD_LLAMA_GUARD_MODEL": "smollm2-135m",
    "LLMMESH_GATEWAY_LIMITS_TIMEOUT_SECONDS": "5",
    "LLMMESH_BILLING_CONTENTS_KEY": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
}
SECRET_SETTINGS = ("SCRIPTED_KEY", "LLMMESH_BILLING_CONTENTS_KEY", "LLMMESH_API_KEY", "LLMMESH_ADMIN_KEY")
_numbers = count()


@dataclass
class Mesh:
    """A running mesh and what its callers hold."""

    var: Path
    environment: dict[str, str]
    settings: dict[str, str]
    http: httpx.AsyncClient = field(init=False)
    clients: AsyncExitStack = field(default_factory=AsyncExitStack)
    secrets: set[str] = field(default_factory=set)
    """What no log and no store may hold in clear."""

    @property
    def url(self) -> str:
        """The edge."""
        return self.settings["LLMMESH_URL"]

    @property
    def admin(self) -> dict[str, str]:
        """Headers of the admin."""
        return {"authorization": f"Bearer {self.settings['LLMMESH_ADMIN_KEY']}"}

    def openai(self, key: str) -> AsyncOpenAI:
        """The official client, without its own retries; open until the mesh ends."""
        client = AsyncOpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=60)
        self.clients.push_async_callback(client.close)
        return client

    async def tenant(self, **policy: Any) -> Tenant:
        """A new tenant with its own key and a full budget."""
        name = f"t{os.getpid()}-{next(_numbers)}"
        body = {"tenant_id": name, "budget_limit_micros": BUDGET_MICROS, "policy": policy}
        (await self.http.post("/v1/tenants", headers=self.admin, json=body)).raise_for_status()
        tenant = Tenant(self, name)
        await tenant.key()
        return tenant

    def pids(self) -> dict[str, int]:
        """The processes that run now, by name."""
        states = json.loads(self.command("status", "--json").stdout)
        return {name: int(state["pid"]) for name, state in states.items() if state["pid"]}

    def kill(self, service: str) -> None:
        """Kill -9, as a machine would."""
        os.kill(self.pids()[service], signal.SIGKILL)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the mesh's own command line."""
        return subprocess.run(
            [sys.executable, "-m", "deploy.local", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        )


@dataclass
class Tenant:
    """A tenant of the mesh, as its own people see it."""

    mesh: Mesh
    id: str
    token: str = ""
    key_id: str = ""

    async def key(self, **body: Any) -> str:
        """Make a key and use it from now on."""
        answer = await self.mesh.http.post(f"/v1/tenants/{self.id}/keys", headers=self.mesh.admin, json=body)
        made = answer.raise_for_status().json()
        self.token, self.key_id = made["token"], made["key"]["id"]
        self.mesh.secrets.add(self.token)
        return self.token

    @property
    def headers(self) -> dict[str, str]:
        """Headers of its developer."""
        return {"authorization": f"Bearer {self.token}"}

    @property
    def openai(self) -> AsyncOpenAI:
        """The official client with its key."""
        return self.mesh.openai(self.token)

    async def chat(self, text: str, model: str = "scripted", **more: Any) -> httpx.Response:
        """Ask once."""
        body = {"model": model, "messages": [{"role": "user", "content": text}], **more}
        return await self.mesh.http.post("/v1/chat/completions", headers=self.headers, json=body)

    async def cache_of(self, text: str) -> str:
        """Ask once; where the cache comes in, such as "miss"."""
        status: str = (await self.chat(text)).headers["x-llmmesh-cache"]
        return status

    async def finds_in_other_words(self, text: str, wordings: Iterator[str]) -> None:
        """Ask, and wait until one of the wordings is a semantic hit.

        Each is used once: asked too early it is a miss, and an exact hit ever after.
        """

        async def is_remembered() -> bool:
            return await self.cache_of(text) == "exact"

        async def is_reworded() -> bool:
            return await self.cache_of(next(wordings)) == "semantic"

        await eventually(is_remembered)
        await eventually(is_reworded)

    async def admin_get(self, path: str) -> Any:
        """Read one of its admin resources, such as "/budget"."""
        answer = await self.mesh.http.get(f"/v1/tenants/{self.id}{path}", headers=self.mesh.admin)
        return answer.raise_for_status().json()

    async def usage(self, rows: int) -> list[dict[str, Any]]:
        """Its ledger once it holds at least so many rows, newest first."""

        async def read() -> list[dict[str, Any]] | None:
            records = (await self.admin_get("/usage")).get("records", [])
            return records if len(records) >= rows else None

        found: list[dict[str, Any]] = await eventually(read)
        return found


async def eventually(look: Callable[[], Awaitable[Any]], timeout_seconds: float = 30) -> Any:
    """What `look` gives once it gives something true; TimeoutError when it never does."""
    async with asyncio.timeout(timeout_seconds):
        while True:
            seen = await look()
            if seen:
                return seen
            await asyncio.sleep(0.05)


@asynccontextmanager
async def running_mesh(var: Path, **overrides: str) -> AsyncIterator[Mesh]:
    """Start a mesh whose state is under `var`; stop it at the end and show its logs when it did not start."""
    environment = {**os.environ, **QUICK, "LLMMESH_VAR": str(var), "LLMMESH_PORT": "0", **overrides}
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "deploy.local", "up", "--without-model-wait", env=environment, stdout=-1, stderr=-2
    )
    output, _ = await asyncio.wait_for(started.communicate(), 300)
    mesh = Mesh(var, environment, _env_file(var / "run" / "mesh.env"))
    mesh.secrets |= {environment[name] for name in SECRET_SETTINGS if name in environment}
    mesh.secrets |= {mesh.settings[name] for name in SECRET_SETTINGS if name in mesh.settings}
    try:
        assert started.returncode == 0, output.decode()
        async with mesh.clients, httpx.AsyncClient(base_url=mesh.url, timeout=60) as mesh.http:
            yield mesh
    finally:
        await asyncio.to_thread(mesh.command, "down")
    assert leaks([var / "log", var / "data"], mesh.secrets) == {}


def _env_file(path: Path) -> dict[str, str]:
    lines = path.read_text().splitlines() if path.exists() else []
    pairs = (line.removeprefix("export ").partition("=") for line in lines if "=" in line)
    return {name: value.strip("'\"") for name, _, value in pairs}


@pytest.fixture(scope="session")
async def providers() -> AsyncIterator[tuple[ScriptedProvider, ScriptedProvider]]:
    """The two clouds, from the first test to the last."""
    async with scripted_provider() as first, scripted_provider() as second:
        yield first, second


def mesh_between(
    var: Path, first: ScriptedProvider, second: ScriptedProvider, **overrides: str
) -> AbstractAsyncContextManager[Mesh]:
    """A mesh whose clouds are these two, the first cheaper."""
    routes = ROUTES.read_text().replace("FIRST_URL", first.base_url).replace("SECOND_URL", second.base_url)
    (var / "routes.yaml").write_text(routes)
    settings = {
        "LLMMESH_ROUTES": str(var / "routes.yaml"),
        "LLMMESH_PRICES": str(PRICES),
        "SCRIPTED_KEY": f"sk-planted-{uuid4().hex}",
    }
    return running_mesh(var, **settings, **overrides)


@pytest.fixture(scope="session")
async def corp() -> AsyncIterator[ScriptedIssuer]:
    """An issuer whose access tokens the mesh takes for the demo tenant's; group "users" makes developers."""
    async with scripted_issuer() as issuer:
        yield issuer


@pytest.fixture(scope="session")
async def mesh(
    tmp_path_factory: pytest.TempPathFactory,
    providers: tuple[ScriptedProvider, ScriptedProvider],
    corp: ScriptedIssuer,
) -> AsyncIterator[Mesh]:
    """One mesh for all tests of the session."""
    var = tmp_path_factory.mktemp("mesh")
    (var / "issuers.yaml").write_text(json.dumps({"issuers": [_trusted(corp)]}))
    async with mesh_between(var, *providers, LLMMESH_ISSUERS=str(var / "issuers.yaml")) as running:
        yield running


def _trusted(issuer: ScriptedIssuer) -> dict[str, Any]:
    return {
        "name": "corp",
        "issuer": ISSUER,
        "audiences": [AUDIENCE],
        "jwks_uri": issuer.jwks_uri,
        "tenants": [{"tenant": "demo"}],
        "roles": [{"role": "developer", "claim": "groups", "value": "users"}],
    }


@pytest.fixture
def first(providers: tuple[ScriptedProvider, ScriptedProvider]) -> ScriptedProvider:
    """The cheaper cloud, as new."""
    providers[0].reset()
    return providers[0]


@pytest.fixture
def second(providers: tuple[ScriptedProvider, ScriptedProvider]) -> ScriptedProvider:
    """The dearer cloud, as new."""
    providers[1].reset()
    return providers[1]


@pytest.fixture
async def tenant(mesh: Mesh, first: ScriptedProvider, second: ScriptedProvider) -> Tenant:
    """A new tenant of a mesh whose clouds behave."""
    return await mesh.tenant()


@pytest.fixture(scope="session")
async def real_model(mesh: Mesh) -> str:
    """The name of the mesh's own chat model, once it is loaded."""

    async def ready() -> bool:
        answer = await mesh.http.get("/v1/providers", headers=mesh.admin)
        states = answer.raise_for_status().json()["providers"]
        return any(
            state["deployment"]["name"] == "local/smollm2-135m" and state["health"] == "PROVIDER_HEALTH_READY"
            for state in states
        )

    await eventually(ready, 300)
    return "smollm2-135m"
