"""Every door, tried by everybody: the edge and the chassis let in whom the protos name, and nobody else."""

from __future__ import annotations

import importlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from deploy.envoy.catalogue import ROOMS, Method, read_methods
from deploy.envoy.permissions import PAGE, ROLES, inserted
from llmmesh.access.v1 import access_pb2
from meshkit.access import role_name
from meshkit.server import Mount, running
from tests.envoy.rooms import ALONE, SigningKey, TenantRoom
from tests.support.fix_envoy import RunningEnvoy, running_envoy

METHODS = read_methods()
EXPOSED = [method for method in METHODS if method.exposed]
REST = [(method, path) for method in EXPOSED for path in method.rest]
STRANGER = None
CALLERS = (*ROLES, "", "superuser", "admin,finance", "ADMIN", STRANGER)
PLACE = re.compile(r"\{[^}]*\}")
CALL_SECONDS = 20


def mounts(issuer: SigningKey) -> list[Mount]:
    """Every service there is, as generated: whoever is let in finds nothing done there."""
    found = {}
    for service in dict.fromkeys(method.service for method in METHODS):
        package, _, name = service.rpartition(".")
        module = importlib.import_module(f"{package}.{_file_of(service)}_pb2_grpc")
        servicer = TenantRoom(issuer) if name == "TenantService" else getattr(module, f"{name}Servicer")()
        found[service] = Mount(getattr(module, f"add_{name}Servicer_to_server"), servicer)
    return list(found.values())


def _file_of(service: str) -> str:
    """The proto file a service is written in."""
    folder = Path(__file__).parents[2] / "protos" / service.rpartition(".")[0].replace(".", "/")
    [file] = [file for file in folder.glob("*.proto") if f"service {service.rpartition('.')[2]} " in file.read_text()]
    return file.stem


@pytest.fixture(scope="module")
async def doors(issuer: SigningKey, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningEnvoy]:
    """An edge whose every cluster is one server with all services."""
    async with (
        running(mounts(issuer), ALONE, room="all") as port,
        running_envoy({room: [port] for room in ROOMS}, tmp_path_factory.mktemp("doors")) as envoy,
    ):
        for room in ROOMS:
            await envoy.healthy(room)
        yield envoy


def headers_of(issuer: SigningKey, caller: str | None) -> dict[str, str]:
    return {} if caller is STRANGER else issuer.bearer(roles=caller)


def let_in(method: Method, caller: str | None) -> bool:
    return method.anonymous or caller in method.roles


async def native(channel: grpc.aio.Channel, path: str, headers: dict[str, str]) -> grpc.StatusCode:
    """How a call with an empty message ends; a stream's first word is enough."""
    call: Any = channel.unary_stream(path)(b"", metadata=tuple(headers.items()), timeout=CALL_SECONDS)
    try:
        await call.read()
    except grpc.aio.AioRpcError as error:
        return error.code()
    code = await call.code() if call.done() else grpc.StatusCode.OK
    call.cancel()
    return grpc.StatusCode.OK if code is None else code


@pytest.mark.parametrize("caller", CALLERS)
async def test_every_rpc_lets_in_whom_its_proto_names(
    doors: RunningEnvoy, issuer: SigningKey, caller: str | None
) -> None:
    refusal = grpc.StatusCode.UNAUTHENTICATED if caller is STRANGER else grpc.StatusCode.PERMISSION_DENIED
    refused = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}
    wrong = {}
    async with grpc.aio.insecure_channel(doors.grpc_target) as channel:
        for method in EXPOSED:
            code = await native(channel, method.path, headers_of(issuer, caller))
            fits = code not in refused if let_in(method, caller) else code is refusal
            if not fits:
                wrong[method.path] = code
    assert wrong == {}


@pytest.mark.parametrize("caller", CALLERS)
async def test_every_rest_path_lets_in_whom_its_proto_names(
    doors: RunningEnvoy, issuer: SigningKey, caller: str | None
) -> None:
    refusal = 401 if caller is STRANGER else 403
    wrong = {}
    async with httpx.AsyncClient(base_url=doors.url, timeout=CALL_SECONDS) as client:
        for method, path in REST:
            verb, _, template = path.partition(" ")
            body = None if verb in ("GET", "DELETE") else b"{}"
            url = PLACE.sub("some-id", template)
            answer = await client.request(verb, url, headers=headers_of(issuer, caller), content=body)
            fits = answer.status_code not in (401, 403) if let_in(method, caller) else answer.status_code == refusal
            if not fits:
                wrong[path] = answer.status_code
    assert wrong == {}


async def test_rpcs_of_the_mesh_alone_exist_for_nobody_outside(doors: RunningEnvoy, issuer: SigningKey) -> None:
    inside = [method for method in METHODS if not method.exposed]
    async with grpc.aio.insecure_channel(doors.grpc_target) as channel:
        codes = {
            method.path: await native(channel, method.path, issuer.bearer(roles=" ".join(ROLES))) for method in inside
        }
    assert codes == dict.fromkeys(codes, grpc.StatusCode.UNIMPLEMENTED)
    assert len(codes) > 10


def test_every_rpc_that_the_edge_routes_names_who_may_call_it() -> None:
    assert [method.path for method in EXPOSED if not method.roles and not method.anonymous] == []


def test_the_table_in_the_documentation_is_what_the_protos_say() -> None:
    assert inserted(PAGE.read_text(), METHODS) == PAGE.read_text()
    assert [role_name(role) for role in access_pb2.Role.values()[1:]] == list(ROLES)
