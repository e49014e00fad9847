"""The mesh's figures on this machine, generator included: `make bench` prints a table and writes JSON.

Each figure names its goal. Speeds are medians of rounds in one run; on a shared machine compare ratios and CPU. The
first line is what the machine itself takes; `--let-sleep` shows what its sleeping processors add.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import psutil
import uvloop
from rich.table import Table

from deploy.local.settings import USUAL_GATEWAYS
from tests.load import routing_decision
from tests.load.awake import awake
from tests.load.bench_billing import billing_figures
from tests.load.bench_cache import crowd_figure, lookup_figures
from tests.load.bench_floor import floor_figures
from tests.load.bench_guard import guard_figures
from tests.load.bench_router import router_figures
from tests.load.bench_semantic import semantic_figures
from tests.load.busy import Busy
from tests.load.figure import Figure, at_least, at_most, console
from tests.load.generator import Load, h2load
from tests.load.machine import machine
from tests.support.fix_mesh import PRICES, ROUTES, Mesh, Tenant, eventually, running_mesh

ROUNDS = 3
SECONDS_PER_ROUND = 6
PAIRS = 150


def chat(text: str) -> bytes:
    """A request body."""
    return json.dumps({"model": "scripted", "messages": [{"role": "user", "content": text}]}).encode()


async def exact_hits(mesh: Mesh, tenant: Tenant) -> list[Figure]:
    """How fast a cached answer is, through the whole front door."""
    url, body = f"{mesh.url}/v1/chat/completions", chat("What does a fox eat?")
    await eventually(lambda: hit(mesh, tenant))
    one = [await h2load(url, tenant.headers, body, clients=1, seconds=3) for _ in range(ROUNDS)]
    # Whoever bounds the age of answers gets no copy of the gateway's.
    fresh = {**tenant.headers, "cache-control": "max-age=3600"}
    asked_32, asked_1 = [await h2load(url, fresh, body, clients=clients, seconds=3) for clients in (32, 1)]
    return [
        at_most("exact hit, 1 connection, p50", _median(one, lambda load: load.p50_ms), "ms", 4),
        Figure(
            "exact hit, 32 connections, the cache asked each time",
            round(asked_32.per_second, 2),
            "req/s",
            "",
            None,
            f"p50 at 1 connection {asked_1.p50_ms:.1f} ms",
        ),
    ]


async def crowded_hits(mesh: Mesh, tenant: Tenant, name: str, goal: float | None = 700) -> Figure:
    """One cached answer asked for by many at once."""
    await eventually(lambda: hit(mesh, tenant))
    url, body = f"{mesh.url}/v1/chat/completions", chat("What does a fox eat?")
    await h2load(url, tenant.headers, body, clients=32, seconds=2)
    busy = Busy(mesh.pids())
    many = [await h2load(url, tenant.headers, body, clients=32, seconds=SECONDS_PER_ROUND) for _ in range(ROUNDS)]
    cpu = busy.milliseconds_per(sum(load.requests for load in many))
    p50, p99 = _median(many, lambda load: load.p50_ms), _median(many, lambda load: load.p99_ms)
    rate = statistics.median(load.per_second for load in many)
    detail = f"p50 {p50:.1f} ms, p99 {p99:.1f} ms; CPU {cpu}"
    return at_least(name, rate, "req/s", goal, detail) if goal else Figure(name, rate, "req/s", "", None, detail)


async def hit(mesh: Mesh, tenant: Tenant) -> bool:
    """Ask for the answer; whether it was cached."""
    body = chat("What does a fox eat?")
    answer = await mesh.http.post("/v1/chat/completions", headers=tenant.headers, content=body)
    return answer.headers["x-llmmesh-cache"] == "exact"


def _median(loads: list[Load], of: Callable[[Load], float]) -> float:
    return statistics.median(of(load) for load in loads)


async def misses(tenant: Tenant, provider_url: str, name: str, goal_ms: float) -> Figure:
    """Latency the whole path adds to a provider that answers at once: paired, one request at a time."""
    async with httpx.AsyncClient(timeout=30) as direct:

        async def straight(text: str) -> httpx.Response:
            return await direct.post(f"{provider_url}/chat/completions", content=chat(text))

        async def meshed(text: str) -> httpx.Response:
            url = f"{tenant.mesh.url}/v1/chat/completions"
            return await direct.post(url, headers=tenant.headers, content=chat(text))

        added = [await _added(straight, meshed, f"{name}: what is {i} and why?") for i in range(PAIRS)]
    added = sorted(added[PAIRS // 10 :])
    p95 = added[int(len(added) * 0.95)]
    return at_most(f"added on a miss, {name}, p50", statistics.median(added), "ms", goal_ms, f"p95 {p95:.1f} ms")


async def _added(
    straight: Callable[[str], Awaitable[httpx.Response]], meshed: Callable[[str], Awaitable[httpx.Response]], text: str
) -> float:
    async def milliseconds(ask: Callable[[str], Awaitable[httpx.Response]]) -> float:
        started = time.perf_counter()
        answer = await ask(text)
        took = (time.perf_counter() - started) * 1000
        assert answer.status_code == 200, answer.text
        assert answer.headers.get("x-llmmesh-cache", "miss") == "miss"
        return took

    return await milliseconds(meshed) - await milliseconds(straight)


def decision() -> Figure:
    """What it costs to decide who answers."""
    took = routing_decision.measured()
    detail = f"p99 {took.p99:.0f} us; {took.new_p50:.0f} us where no rule has seen the like"
    name = f"routing decision, {routing_decision.DEPLOYMENTS} deployments, {len(routing_decision.RULES)} rules, p50"
    return at_most(name, took.p50, "us", 200, detail)


async def second_start(mesh: Mesh) -> Figure:
    """Time until all but the chat model answers, with state and packages in place."""
    await asyncio.to_thread(mesh.command, "down")
    started = time.perf_counter()
    await asyncio.to_thread(mesh.command, "up", "--without-model-wait")
    return at_most("second start, all but the chat model", time.perf_counter() - started, "s", 10)


def memory(mesh: Mesh) -> list[Figure]:
    """Resident memory of each service, its children included."""
    figures = []
    for name, pid in mesh.pids().items():
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        each = [process.memory_info().rss / 2**20 for process in family]
        detail = "" if len(each) == 1 else " + ".join(f"{part:.0f}" for part in each)
        figures.append(at_most(f"memory of {name}", each[0], "MB", 150, detail))
    return figures


@asynccontextmanager
async def scripted_process() -> AsyncIterator[str]:
    """The scripted provider as a process of its own; yields its base URL."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.scripted_provider", "--port", "0", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    line = (await process.stdout.readline()).decode()
    try:
        yield line.rsplit(maxsplit=1)[1]
    finally:
        process.terminate()
        await process.wait()


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured: a mesh, and the scripted provider behind it."""

    mesh: Mesh
    provider_url: str


@asynccontextmanager
async def setting(**settings: str) -> AsyncIterator[Setting]:
    """A mesh of its own with a provider that answers at once."""
    with tempfile.TemporaryDirectory() as folder:
        async with scripted_process() as provider_url:
            var = Path(folder)
            routes = ROUTES.read_text().replace("FIRST_URL", provider_url).replace("SECOND_URL", provider_url)
            (var / "routes.yaml").write_text(routes)
            usual = {"LLMMESH_PRICES": str(PRICES), "LLMMESH_GATEWAYS": str(USUAL_GATEWAYS)}
            settings = {"LLMMESH_ROUTES": str(var / "routes.yaml"), **usual, **settings}
            async with running_mesh(var, **settings, SCRIPTED_KEY="sk-scripted", LLMMESH_LOCAL_MODELS="none") as mesh:
                yield Setting(mesh, provider_url)


async def _decision() -> list[Figure]:
    return [decision()]


async def _semantic() -> list[Figure]:
    return await semantic_figures(Path("var/semantic-growth.png"))


async def _one_gateway() -> list[Figure]:
    async with setting(LLMMESH_GATEWAYS="1") as at:
        return [await crowded_hits(at.mesh, await at.mesh.tenant(), "exact hit, 32 connections, one gateway", None)]


async def _floor() -> list[Figure]:
    async with scripted_process() as provider_url:
        return await floor_figures(provider_url)


async def _crowded(at: Setting) -> list[Figure]:
    return [await crowded_hits(at.mesh, await at.mesh.tenant(), "exact hit, 32 connections")]


async def _exact(at: Setting) -> list[Figure]:
    return await exact_hits(at.mesh, await at.mesh.tenant())


async def _miss(at: Setting) -> list[Figure]:
    exact_only = await at.mesh.tenant(cache="CACHE_POLICY_EXACT")
    return [
        await misses(exact_only, at.provider_url, "semantic level off", 12),
        await misses(await at.mesh.tenant(), at.provider_url, "semantic level on", 50),
    ]


async def _lookup(at: Setting) -> list[Figure]:
    return await lookup_figures(at.mesh.settings)


async def _crowd(at: Setting) -> list[Figure]:
    return [await crowd_figure(await at.mesh.tenant(), at.provider_url)]


async def _router(at: Setting) -> list[Figure]:
    return await router_figures(at.mesh.settings["LLMMESH_ROUTER_ADDRESS"], at.provider_url)


async def _memory(at: Setting) -> list[Figure]:
    return memory(at.mesh)


async def _start(at: Setting) -> list[Figure]:
    return [await second_start(at.mesh)]


ALONE: dict[str, Callable[[], Awaitable[list[Figure]]]] = {
    "decision": _decision,
    "billing": billing_figures,
    "guard": guard_figures,
    "semantic": _semantic,
    "one-gateway": _one_gateway,
    "floor": _floor,
}
"""Parts that need no mesh, or one of their own."""
THROUGH_MESH: dict[str, Callable[[Setting], Awaitable[list[Figure]]]] = {
    "crowded": _crowded,
    "exact": _exact,
    "miss": _miss,
    "lookup": _lookup,
    "crowd": _crowd,
    "router": _router,
    "memory": _memory,
    "start": _start,
}
"""In this order: the last one restarts the mesh."""


SATURATED = {"one-gateway", "crowded"}
"""Parts that leave no processor idle: what keeps one awake would take from them."""


async def bench(only: str, *, let_sleep: bool) -> list[Figure]:
    """Measure the part named `only`, or all of them."""

    def kept_awake(name: str) -> AbstractContextManager[None]:
        return nullcontext() if let_sleep or name in SATURATED else awake()

    with kept_awake("machine"):
        figures = [await machine()]
    for name, measure_alone in ALONE.items():
        if only in ("", name):
            console.log(f"{name} …")
            with kept_awake(name):
                figures += await measure_alone()
    if only in ALONE:
        return figures
    async with setting() as at:
        for name, measure in THROUGH_MESH.items():
            if only in ("", name):
                console.log(f"{name} …")
                with kept_awake(name):
                    figures += await measure(at)
    return figures


def show(figures: list[Figure], path: Path) -> None:
    """Print the table and write the JSON."""
    table = Table(
        "figure", "value", "goal", "", "detail", title=f"llmmesh on {os.cpu_count()} CPUs, generator included"
    )
    for figure in figures:
        mark = {True: "[green]✓", False: "[red]✗", None: ""}[figure.reached]
        table.add_row(figure.name, f"{figure.value:g} {figure.unit}", figure.goal, mark, figure.detail)
    console.print(table)
    path.parent.mkdir(parents=True, exist_ok=True)
    load = [round(value, 2) for value in os.getloadavg()]
    path.write_text(json.dumps({"load_average": load, "figures": [asdict(figure) for figure in figures]}, indent=2))
    console.print(f"written to {path}")


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(prog="bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", choices=("", *ALONE, *THROUGH_MESH), help="one part alone")
    parser.add_argument("--json", type=Path, default=Path("var/bench.json"), help="where to write (%(default)s)")
    parser.add_argument("--let-sleep", action="store_true", help="do not keep the processors awake (see awake.py)")
    given = parser.parse_args()
    # As every room does, the gateway above all, whose place the generator takes.
    figures = uvloop.run(bench(given.only, let_sleep=given.let_sleep))
    show(figures, given.json)


if __name__ == "__main__":
    main()
