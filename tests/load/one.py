"""Puts one service's main RPC under load on a running mesh: `python -m tests.load.one cache --seconds 10`."""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import shutil
import sys
from collections.abc import Mapping

import grpc
from google.protobuf import json_format
from rich.console import Console
from rich.table import Table

from tests.load import grpc_generators
from tests.load.generator import Load
from tests.load.grpc_generators import LoadFailed
from tests.load.observation import Busy, Served
from tests.load.rpcs import FOLDER, Rpc, read_rpc

ROOMS = ("gateway", "router", "cache", "guard", "billing", "inference")
ANSWER = {
    "gateway": "answer", "router": "finished", "cache": "answer", "guard": "verdict", "billing": "reservation",
    "inference": "embeddings",
}  # fmt: skip
"""Field of the last reply without which nothing was answered."""
REPLY_WIDTH = 300
console = Console(width=120)


class ReplyEmpty(Exception):
    """The service accepted the request and answered nothing: the payload is not what it should be."""


async def main(room: str, seconds: int, clients: int, environment: Mapping[str, str]) -> None:
    """Check one reply, load the RPC, print a table."""
    variables = {**environment, "LLMMESH_TENANT": tenant_of(environment["LLMMESH_API_KEY"])}
    rpc = read_rpc(room, variables)
    if (FOLDER / f"{room}.before.json").exists():
        await reply(read_rpc(f"{room}.before", variables))
    await checked_reply(room, rpc)
    served = Served(environment[f"LLMMESH_{room.upper()}_METRICS_URL"], rpc)
    busy = Busy(environment[f"LLMMESH_{room.upper()}_ADDRESS"])
    generator, load = await loaded(rpc, clients=clients, seconds=seconds)
    calls, cpu_ms = served.since(), busy.milliseconds()
    show(room, rpc, generator, clients, load, cpu_ms / sum(calls.values()))
    # Calls under way when the generator stops are cancelled, at most one per client.
    if not set(calls) <= {"OK", "CANCELLED"} or calls.get("CANCELLED", 0) > clients:
        raise LoadFailed(f"the service ended calls with {calls}")


def tenant_of(api_key: str) -> str:
    """The tenant a virtual key belongs to, read off its claims."""
    claims = api_key.split(".")[1]
    return str(json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["tenant"])


async def reply(rpc: Rpc) -> str:
    """Call once; gives the last message as JSON."""
    async with grpc.aio.insecure_channel(rpc.host) as channel:
        message = await rpc.call(channel)
    return json_format.MessageToJson(message, indent=None, preserving_proto_field_name=True, ensure_ascii=False)


async def checked_reply(room: str, rpc: Rpc) -> None:
    """Call once and show the reply.

    Raises:
        ReplyEmpty: If it lacks what it is asked for.
    """
    text = await reply(rpc)
    console.print(f"{rpc.path} at {rpc.host} answers {text[:REPLY_WIDTH]}", highlight=False, markup=False)
    if ANSWER[room] not in json.loads(text):
        raise ReplyEmpty(f"the reply has no {ANSWER[room]!r}: {text[:REPLY_WIDTH]}")


async def loaded(rpc: Rpc, *, clients: int, seconds: int) -> tuple[str, Load]:
    """Load with the best generator there is for this RPC; gives its name too."""
    if shutil.which("ghz"):
        return "ghz", await grpc_generators.ghz(rpc, clients=clients, seconds=seconds)
    if shutil.which("h2load") and not rpc.varies:
        return "h2load", await grpc_generators.h2load(rpc, clients=clients, seconds=seconds)
    return "grpc.aio", await grpc_generators.grpc_aio(rpc, clients=clients, seconds=seconds)


def show(room: str, rpc: Rpc, generator: str, clients: int, load: Load, cpu_ms: float) -> None:
    """Print the figures; CPU is the service's own, per call."""
    table = Table("service", "RPC", "generator", "clients", "calls", "calls/s", "p50 ms", "p95 ms", "p99 ms", "CPU ms")
    figures = (f"{figure:.1f}" for figure in (load.per_second, load.p50_ms, load.p95_ms, load.p99_ms))
    method = rpc.path.rpartition("/")[2]
    table.add_row(room, method, generator, str(clients), str(load.requests), *figures, f"{cpu_ms:.2f}")
    console.print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.load.one", description=__doc__)
    parser.add_argument("service", choices=ROOMS)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--clients", type=int, default=16)
    asked = parser.parse_args()
    try:
        asyncio.run(main(asked.service, asked.seconds, asked.clients, os.environ))
    except KeyError as missing:
        sys.exit(f"{missing} is not set: source var/run/mesh.env of a running mesh (make up)")
    except (LoadFailed, ReplyEmpty) as error:
        sys.exit(str(error))
    except grpc.aio.AioRpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")
