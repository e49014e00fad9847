"""Prompts and answers: kept encrypted for those who ask, shown to their auditors, destroyed with their key."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable

import grpc
import pytest

from llmmesh.audit.v1 import contents_pb2
from llmmesh.tenant.v1 import tenant_pb2
from meshkit.errors import error_info, error_reason
from meshkit.identity import Identity, acting_as
from services.billing.contents.rewrapping import main
from tests.room.billing.conftest import Configure
from tests.support.billing_room import ADMIN, Room, billing_room

KEY = b64encode(bytes(range(32))).decode()
PROMPT = "Мой СНИЛС 112-233-445 95"


@pytest.fixture(scope="module")
async def vault(configure: Configure, books: str) -> AsyncIterator[Room]:
    """A room that keeps contents."""
    async with billing_room(configure(books, contents_key=KEY)) as room:
        yield room


async def refusal(call: Awaitable[object]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def keep(room: Room, tenant_id: str, request_id: str, prompt: str = PROMPT) -> None:
    await room.contents.KeepContents(
        contents_pb2.KeepContentsRequest(tenant_id=tenant_id, request_id=request_id, prompt=prompt, answer="Да")
    )


async def show(room: Room, tenant_id: str, request_id: str, caller: Identity = ADMIN) -> tuple[str, str]:
    with acting_as(caller):
        shown = await room.contents.GetContents(
            contents_pb2.GetContentsRequest(tenant_id=tenant_id, request_id=request_id)
        )
    return shown.prompt, shown.answer


async def destroy(room: Room, tenant_id: str) -> int:
    with acting_as(ADMIN):
        request = contents_pb2.DestroyContentsRequest(tenant_id=tenant_id)
        return (await room.contents.DestroyContents(request)).request_count


def on_disk(room: Room) -> bytes:
    with room.database() as connection:
        rows = connection.execute("SELECT sealed FROM audit_contents").fetchall()
    return b"".join(sealed for (sealed,) in rows)


async def test_contents_are_shown_as_they_were_and_lie_encrypted(vault: Room) -> None:
    await keep(vault, "kept", "r1")
    assert await show(vault, "kept", "r1") == (PROMPT, "Да")
    assert on_disk(vault)
    assert PROMPT.encode() not in on_disk(vault)


async def test_the_first_contents_of_a_request_stay(vault: Room) -> None:
    await keep(vault, "first", "r1")
    await keep(vault, "first", "r1", "another")
    assert (await show(vault, "first", "r1"))[0] == PROMPT


async def test_many_first_contents_at_once_share_one_key(vault: Room) -> None:
    await asyncio.gather(*(keep(vault, "crowd", f"r{number}", f"prompt {number}") for number in range(20)))
    shown = [await show(vault, "crowd", f"r{number}") for number in range(20)]
    assert [prompt for prompt, _ in shown] == [f"prompt {number}" for number in range(20)]


async def test_contents_of_a_tenant_are_gone_with_its_key_and_nobody_elses(vault: Room) -> None:
    await keep(vault, "erased", "r1")
    await keep(vault, "erased", "r2")
    await keep(vault, "untouched", "r1")
    assert await destroy(vault, "erased") == 2
    assert error_reason(await refusal(show(vault, "erased", "r1"))) == "RESOURCE_NOT_FOUND"
    assert (await show(vault, "untouched", "r1"))[0] == PROMPT
    await keep(vault, "erased", "r3")
    assert (await show(vault, "erased", "r3"))[0] == PROMPT
    assert await destroy(vault, "erased") == 1


async def test_contents_are_shown_to_auditors_of_their_tenant_alone(vault: Room) -> None:
    await keep(vault, "private", "r1")
    assert await show(vault, "private", "r1", Identity("private", "k", frozenset({"auditor"}), "r"))
    stranger = Identity("elsewhere", "k", frozenset({"auditor"}), "r")
    assert error_reason(await refusal(show(vault, "private", "r1", stranger))) == "RESOURCE_NOT_FOUND"
    developer = Identity("private", "k", frozenset({"developer"}), "r")
    assert error_reason(await refusal(show(vault, "private", "r1", developer))) == "ROLE_MISSING"
    with acting_as(Identity("private", "k", frozenset({"auditor"}), "r")):
        call = vault.contents.DestroyContents(contents_pb2.DestroyContentsRequest(tenant_id="private"))
        assert error_reason(await refusal(call)) == "ROLE_MISSING"


async def test_a_room_without_a_key_keeps_nobodys_contents(configure: Configure, fresh_books: str) -> None:
    async with billing_room(configure(fresh_books)) as room:
        error = await refusal(room.tenant("wishful", policy=tenant_pb2.Policy(keep_contents=True)))
        info = error_info(error)
        assert info
        assert info.metadata["field"] == "policy.keep_contents"
        assert error_reason(await refusal(keep(room, "wishful", "r1"))) == "FIELD_INVALID"


async def test_a_tenant_may_ask_to_have_its_contents_kept(vault: Room) -> None:
    await vault.tenant("asking", policy=tenant_pb2.Policy(keep_contents=True))
    with acting_as(ADMIN):
        tenant = (await vault.tenants.GetTenant(tenant_pb2.GetTenantRequest(tenant_id="asking"))).tenant
    assert tenant.policy.keep_contents


def rewrap(url: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["--database-url", url])
    return int(str(ended.value.code))


async def test_the_master_key_is_exchanged_and_contents_stay_readable(
    configure: Configure, fresh_books: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = b64encode(bytes(range(32, 64))).decode()
    both = f"{newest},{KEY}"
    async with billing_room(configure(fresh_books, contents_key=KEY)) as room:
        await keep(room, "early", "r1")
    async with billing_room(configure(fresh_books, contents_key=both)) as room:
        await keep(room, "late", "r1")
        monkeypatch.setenv("LLMMESH_BILLING_CONTENTS_KEY", both)
        assert await asyncio.to_thread(rewrap, fresh_books) == 0
        assert "1 keys wrapped anew, 1 were so already" in capsys.readouterr().out
        await keep(room, "early", "r2")
    async with billing_room(configure(fresh_books, contents_key=newest)) as room:
        for tenant_id, request_id in (("early", "r1"), ("early", "r2"), ("late", "r1")):
            assert (await show(room, tenant_id, request_id))[0] == PROMPT
    monkeypatch.setenv("LLMMESH_BILLING_CONTENTS_KEY", KEY)
    assert rewrap(fresh_books) == 1
    assert "the key of early fits none of the master keys" in capsys.readouterr().err
