"""What a person may set about a local mesh, and what they are told when it cannot be."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

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
