"""What a person may set about a local mesh, and what they are told when it cannot be."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from deploy.local.ports import PortTaken, assign_ports
from deploy.local.settings import REPOSITORY, LocalSettings, SettingsInvalid


def settings(folder: Path, **variables: str) -> LocalSettings:
    """Settings of a mesh below `folder`."""
    return LocalSettings.read({"LLMMESH_VAR": str(folder), "LLMMESH_PORT": "0", **variables})


def test_without_variables_everything_is_in_the_repository() -> None:
    usual = LocalSettings.read({})
    assert (usual.var, usual.edge_host, usual.edge_port) == (REPOSITORY / "var", "127.0.0.1", 8080)
    assert usual.chat_models == f"smollm2-135m={REPOSITORY}/var/models/smollm2-135m"


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


def test_a_taken_edge_port_is_named_with_its_holder(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(PortTaken, match=rf"Port {port} .*process {os.getpid()} holds it.*LLMMESH_PORT"):
            assign_ports(settings(tmp_path, LLMMESH_PORT=str(port)))


def test_no_two_listeners_get_the_same_port(tmp_path: Path) -> None:
    ports = assign_ports(settings(tmp_path))
    chosen = [ports.edge, ports.mesh, ports.admin, ports.status, *ports.services.values(), *ports.metrics.values()]
    assert len(set(chosen)) == len(chosen) == 16
