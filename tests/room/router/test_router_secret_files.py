"""Secrets in files, as Kubernetes mounts them: rotated under requests that go on, and given away to nobody."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from llmmesh.chat.v1 import chat_pb2
from services.gateway.peers.router import unpacked
from tests.support.router_room import RouterRoom, Told, cloud

OLD, NEW = "sk-planted-in-a-file-1", "sk-planted-in-a-file-2"
SLOW = {"reply_tokens": 40, "tokens_per_second": 50}
MakeRoom = Callable[..., AbstractAsyncContextManager[RouterRoom]]


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A secret as the kubelet mounts it: a link below a link that is swapped."""
    path = tmp_path / "secrets" / "key"
    path.parent.mkdir()
    path.symlink_to("..data/key")
    mount(path, OLD + "\n")
    return path


def mount(path: Path, text: str) -> None:
    """Put another secret in place, in one step."""
    folder = path.parent / f"..{len(list(path.parent.iterdir()))}"
    folder.mkdir()
    (folder / "key").write_text(text)
    link = path.parent / "..data_tmp"
    link.symlink_to(folder.name)
    link.replace(path.parent / "..data")


def running(make_room: MakeRoom, secret: Path, **changes: Any) -> AbstractAsyncContextManager[RouterRoom]:
    """A router that is known at its cloud by the secret of a file."""
    entry = {"credential": f"file:{secret}", **changes}
    return make_room(entries=lambda cheap, _: [cloud("cheap", cheap, **entry)], routes_poll_seconds=0.02)


async def mounted(room: RouterRoom, path: Path, text: str) -> None:
    """Put another secret in place, and wait until it is in force."""
    before = (await room.states()).routes.load_time.ToNanoseconds()
    mount(path, text)
    await room.until_states(lambda states: states.routes.load_time.ToNanoseconds() > before)


async def taken(room: RouterRoom, authorization: str) -> Told:
    """An answer of a cloud that knows us by this alone."""
    room.cheap.set(authorization=authorization)
    return await room.answer()


async def test_a_new_secret_is_used_without_a_restart_and_neither_is_given_away(make_room, secret, capsys):
    async with running(make_room, secret) as room:
        await taken(room, f"Bearer {OLD}")
        await mounted(room, secret, NEW)
        assert (await taken(room, f"Bearer {NEW}")).route.deployment == "cheap"
        states = await room.states()
    written = "".join(capsys.readouterr()) + str(states)
    assert "files_taken" in written
    assert not any(planted in written for planted in (OLD, NEW))


async def test_a_stream_under_way_ends_with_the_secret_it_began_with(make_room, secret):
    async with running(make_room, secret) as room:
        room.cheap.set(**SLOW)
        told, call = Told([]), room.stub.StreamGenerateChat(room.request(), timeout=20)
        steps = aiter(call)
        told.steps.extend(unpacked(await anext(steps)))
        await mounted(room, secret, NEW)
        room.cheap.set(authorization=f"Bearer {NEW}")
        assert (await room.answer()).route.deployment == "cheap"
        await told.gather(steps)
    assert told.finished.finish_reason == chat_pb2.FINISH_REASON_STOP
    assert told.text.count("fox") == 5


@pytest.mark.parametrize("bad", ["", "\n", "two\nlines", "x" * 70_000, "a\0b"])
async def test_a_bad_secret_is_refused_by_name_and_the_old_one_stays(make_room, secret, bad):
    async with running(make_room, secret) as room:
        room.cheap.set(authorization=f"Bearer {OLD}")
        mount(secret, bad)
        await room.until_states(lambda states: states.routes.HasField("refuse_time"))
        [mistake] = (await room.states()).routes.mistakes
        assert mistake.startswith(f"deployments[0].credential: {secret} is not a file of one printable line")
        assert (await room.answer()).route.deployment == "cheap"
        await mounted(room, secret, NEW)
        await taken(room, f"Bearer {NEW}")


async def test_a_secret_that_comes_late_brings_its_optional_deployment(make_room, secret, tmp_path):
    late = tmp_path / "late"

    def entries(cheap: Any, dear: Any) -> list[dict[str, Any]]:
        return [cloud("late", cheap, credential=f"file:{late}", optional=True), cloud("dear", dear)]

    async with make_room(entries=entries, routes_poll_seconds=0.02) as room:
        assert [each.deployment.name for each in (await room.states()).providers] == ["dear"]
        late.write_text(NEW)
        await room.until_states(lambda states: len(states.providers) == 2)
        room.cheap.set(authorization=f"Bearer {NEW}")
        assert (await room.answer()).route.deployment == "late"


async def test_without_its_secret_the_router_does_not_start(make_room, secret, tmp_path):
    with pytest.raises(ValueError, match="is not a file of one printable line"):
        async with running(make_room, tmp_path / "nowhere"):
            pass


@pytest.mark.parametrize("name", ["file:relative", "file:", "file:/a b", "sk-in-the-clear"])
async def test_what_names_no_file_is_refused(make_room, secret, name):
    with pytest.raises(ValueError, match=r"credential: ") as caught:
        async with running(make_room, secret, credential=name):
            pass
    assert "sk-in-the-clear" not in str(caught.value)
