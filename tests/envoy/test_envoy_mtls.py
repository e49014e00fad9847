"""Certificates between Envoy and the rooms: those who have one of the authority speak, and nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import pytest
import trustme

from deploy.envoy.topology import tls_from
from llmmesh.cache.v1 import cache_pb2
from llmmesh.cache.v1.cache_pb2_grpc import CacheServiceStub
from meshkit.client import connect
from meshkit.probe import serving
from meshkit.tls import TlsSettings, own_tls
from tests.envoy.rooms import CacheRoom, SigningKey, billing_room, cache_rooms, gateway_room
from tests.support.fix_envoy import RunningEnvoy, running_envoy

CHAT = "/v1/chat/completions"
OK, AWAY = grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE
Wear = Callable[..., dict[str, str]]


@dataclass
class Mesh:
    """An Envoy before rooms, all certified."""

    envoy: RunningEnvoy
    cache_port: int


@dataclass
class Wardrobe:
    """Certificates of one authority; what this process starts or calls shows the one it wears."""

    folder: Path
    environment: pytest.MonkeyPatch
    authority: trustme.CA

    def wear(self, name: str, by: trustme.CA | None = None) -> dict[str, str]:
        """Put on a certificate of a name, of another authority if `by` says so."""
        made = (by or self.authority).issue_cert(name, "localhost")
        folder = self.folder / f"{name}{len(list(self.folder.iterdir()))}"
        folder.mkdir()
        files = {f"LLMMESH_TLS_{part}": folder / f"{part}.pem" for part in ("CERTIFICATE", "KEY", "AUTHORITY")}
        files["LLMMESH_TLS_KEY"].write_bytes(made.private_key_pem.bytes())
        files["LLMMESH_TLS_CERTIFICATE"].write_bytes(b"".join(pem.bytes() for pem in made.cert_chain_pems))
        files["LLMMESH_TLS_AUTHORITY"].write_bytes(self.authority.cert_pem.bytes())
        for variable, path in files.items():
            self.environment.setenv(variable, str(path))
        return {variable: str(path) for variable, path in files.items()}


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def wear(tmp_path: Path, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> Wear:
    """Give this process a certificate of a name until the test ends."""
    return Wardrobe(tmp_path, monkeypatch, authority).wear


@pytest.fixture(scope="module")
async def mesh(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    issuer = SigningKey()
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        with pytest.MonkeyPatch.context() as environment:
            wear = Wardrobe(tmp_path_factory.mktemp("worn"), environment, authority).wear
            wear("gateway.llmmesh")
            gateway = await enter(gateway_room())
            wear("billing.llmmesh")
            billing = await enter(billing_room(issuer))
            wear("cache.llmmesh")
            [cache] = await enter(cache_rooms(CacheRoom()))
            tls = tls_from(wear("envoy.llmmesh"))
        rooms = {"gateway": [gateway], "billing": [billing], "cache": [cache]}
        envoy = await enter(running_envoy(rooms, tmp_path_factory.mktemp("envoy"), tls=tls))
        for room in rooms:
            await envoy.healthy(room)
        async with httpx.AsyncClient(base_url=envoy.url, headers=issuer.bearer(), timeout=20) as http:
            assert (await http.post(CHAT, json={"do": "echo"})).status_code == 200
        yield Mesh(envoy, cache)


async def asked(target: str) -> grpc.StatusCode:
    """How a call to the cache ends, with what this process wears."""
    async with connect(target, CacheServiceStub) as stub:
        call = stub.LookupAnswer(cache_pb2.LookupAnswerRequest(), timeout=5)
        return await call.code()  # type: ignore[attr-defined, no-any-return] # the asynchronous stub


async def probed(mesh: Mesh) -> bool:
    """Whether the cache's own probe finds it, with what this process wears."""
    return await asyncio.to_thread(serving, f"127.0.0.1:{mesh.cache_port}")


async def test_a_certified_room_reaches_another_and_its_probe_reaches_itself(mesh: Mesh, wear: Wear) -> None:
    wear("gateway.llmmesh")
    assert await asked(mesh.envoy.mesh_target) is OK
    assert await probed(mesh)


async def test_plain_callers_reach_neither_the_mesh_nor_a_room(mesh: Mesh) -> None:
    assert own_tls() is None
    assert await asked(mesh.envoy.mesh_target) is AWAY
    assert await asked(f"127.0.0.1:{mesh.cache_port}") is AWAY
    assert not await probed(mesh)


async def test_a_certificate_of_another_authority_opens_nothing(mesh: Mesh, wear: Wear) -> None:
    wear("gateway.llmmesh", by=trustme.CA())
    assert await asked(mesh.envoy.mesh_target) is AWAY
    assert not await probed(mesh)


async def test_a_server_that_is_not_envoy_is_told_nothing(mesh: Mesh, wear: Wear) -> None:
    wear("gateway.llmmesh")
    assert await asked(f"127.0.0.1:{mesh.cache_port}") is AWAY


async def test_a_room_passes_for_no_other_room(wear: Wear, tmp_path: Path) -> None:
    wear("gateway.llmmesh")
    async with cache_rooms(CacheRoom()) as [impostor]:
        wear("cache.llmmesh")
        async with cache_rooms(CacheRoom()) as [honest]:
            tls = tls_from(wear("envoy.llmmesh"))
            async with running_envoy({"cache": [impostor, honest], "guard": [honest]}, tmp_path, tls=tls) as envoy:
                await envoy.healthy("cache", 1)
                await envoy.healthy("guard", 0)
                assert [await asked(envoy.mesh_target) for _ in range(4)] == [OK] * 4


def test_half_a_certificate_is_refused_at_start(wear: Wear, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = wear("gateway.llmmesh")
    assert own_tls() is not None
    monkeypatch.delenv("LLMMESH_TLS_KEY")
    with pytest.raises(ValueError, match="go together"):
        TlsSettings()
    with pytest.raises(ValueError, match="go together"):
        tls_from({**environment, "LLMMESH_TLS_KEY": ""})


def test_a_process_without_certificates_speaks_plainly() -> None:
    assert own_tls() is None
    assert tls_from({}) is None
