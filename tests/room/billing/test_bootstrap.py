"""The first tenant and its keys, made without the room running."""

from __future__ import annotations

import asyncio
import base64
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from llmmesh.tenant.v1 import tenant_pb2
from meshkit.identity import Identity, acting_as
from tests.room.billing.conftest import Configure
from tests.support.billing_room import ADMIN, Room, billing_room


class Command:
    """`python -m services.billing.bootstrap` on one database."""

    def __init__(self, database_url: str, folder: Path) -> None:
        self.key_file = folder / "signing-key.json"
        self.tokens_file = folder / "tokens.json"
        self._url = database_url

    def run(self, *arguments: str, keep: bool = True) -> dict[str, str]:
        """Run it and read what it prints."""
        done = self.process(*arguments, keep=keep)
        assert done.returncode == 0, done.stderr
        printed: dict[str, str] = orjson.loads(done.stdout)
        return printed

    def process(self, *arguments: str, keep: bool = True) -> subprocess.CompletedProcess[str]:
        """Run it."""
        kept = ["--tokens-file", str(self.tokens_file)] if keep else []
        return subprocess.run(
            [sys.executable, "-m", "services.billing.bootstrap", "--database-url", self._url,
             "--signing-key-file", str(self.key_file), *kept, *arguments],
            capture_output=True, text=True,
        )  # fmt: skip


@pytest.fixture
def command(database_url: str, tmp_path: Path) -> Command:
    """The command on an empty database."""
    return Command(database_url, tmp_path)


def said(token: str) -> dict[str, object]:
    body = token.split(".")[1]
    claims: dict[str, object] = orjson.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return claims


def test_an_empty_database_gets_a_tenant_and_two_keys(command: Command) -> None:
    printed = command.run("--tenant", "first", "--budget", "5000000")
    assert printed["tenant"] == "first"
    assert (said(printed["developer"])["tenant"], said(printed["developer"])["roles"]) == ("first", "developer")
    assert (said(printed["admin"])["tenant"], said(printed["admin"])["roles"]) == ("first", "admin")


def test_secrets_are_readable_by_their_owner_alone(command: Command) -> None:
    command.run()
    for path in (command.key_file, command.tokens_file):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_second_run_prints_the_same_keys(command: Command) -> None:
    assert command.run() == command.run()


@pytest.fixture
async def room(command: Command, configure: Configure, database_url: str) -> AsyncIterator[Room]:
    """Billing on the database that the command prepares."""
    async with billing_room(configure(database_url, signing_key_file=command.key_file)) as room:
        yield room


async def keys_of(room: Room, tenant_id: str) -> list[tenant_pb2.Key]:
    with acting_as(ADMIN):
        return list((await room.tenants.ListKeys(tenant_pb2.ListKeysRequest(tenant_id=tenant_id))).keys)


async def revoke(room: Room, tenant_id: str, key_id: str) -> None:
    with acting_as(ADMIN):
        await room.tenants.RevokeKey(tenant_pb2.RevokeKeyRequest(tenant_id=tenant_id, key_id=key_id))


async def test_without_a_file_new_keys_replace_the_old_ones(command: Command, room: Room) -> None:
    first = await asyncio.to_thread(command.run, keep=False)
    second = await asyncio.to_thread(command.run, keep=False)
    assert first["developer"] != second["developer"]
    revoked = {key.id for key in await keys_of(room, "demo") if key.HasField("revoke_time")}
    assert revoked == {said(first["developer"])["jti"], said(first["admin"])["jti"]}


async def test_a_revoked_key_is_replaced_and_the_other_kept(command: Command, room: Room) -> None:
    first = await asyncio.to_thread(command.run)
    await revoke(room, "demo", str(said(first["developer"])["jti"]))
    second = await asyncio.to_thread(command.run)
    assert (second["admin"], second["developer"] == first["developer"]) == (first["admin"], False)


async def test_a_running_room_tells_its_watchers_of_the_new_tenant(command: Command, room: Room) -> None:
    watch = room.tenants.WatchPolicies(tenant_pb2.WatchPoliciesRequest())
    changes = aiter(watch)
    await anext(changes)
    await asyncio.to_thread(command.run)
    async with asyncio.timeout(20):
        assert [tenant.id for tenant in (await anext(changes)).tenants] == ["demo"]
    watch.cancel()


async def test_an_existing_tenants_budget_stays(command: Command, room: Room) -> None:
    await asyncio.to_thread(command.run, "--budget", "7")
    await asyncio.to_thread(command.run, "--budget", "9")
    assert (await room.budget(Identity("demo"))).limit_micros == 7


@pytest.mark.parametrize(
    "arguments", [("--tenant", "Not An Id"), ("--budget", "-5"), ("--budget", "much"), ("--currency", "roubles")]
)
def test_bad_arguments_are_named(command: Command, arguments: tuple[str, str]) -> None:
    done = command.process(*arguments)
    assert done.returncode
    assert arguments[0] in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_database_is_said_without_a_traceback(free_port: int, tmp_path: Path) -> None:
    done = Command(f"postgresql+psycopg://postgres@127.0.0.1:{free_port}/none", tmp_path).process()
    assert done.returncode == 1
    assert done.stderr.startswith("bootstrap: The database is away")
