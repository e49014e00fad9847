"""The Compose file: accepted by the Compose specification, and true to the services it starts."""

from __future__ import annotations

import json
import re
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from deploy.envoy.catalogue import ROOMS
from deploy.envoy.clusters import all_clusters
from deploy.envoy.topology import Tls, containers, tls_from
from meshkit.settings import ServiceSettings

FOLDER = Path(__file__).parents[2] / "deploy" / "docker"
TLS = "/etc/llmmesh-tls"
ONCE = {"envoy-config", "bootstrap", "keys"}
"""Services that do one thing and end."""

Service = dict[str, Any]


def interpolated(text: str) -> str:
    """The file with every variable at its default; one without a default is `given`."""
    return re.sub(r"\$\{\w+(?::(-[^}]*|\?[^}]*))?\}", lambda found: (found[1] or "?")[1:].partition(" ")[0], text)


@pytest.fixture(scope="module")
def compose() -> dict[str, Service]:
    """The services of the file."""
    services = yaml.safe_load(interpolated((FOLDER / "compose.yaml").read_text()))["services"]
    assert isinstance(services, dict)
    return services


def test_the_compose_specification_accepts_the_file() -> None:
    document = yaml.safe_load(interpolated((FOLDER / "compose.yaml").read_text()))
    PyCompose.from_json(json.dumps(document))


def test_every_service_of_ours_is_there_and_built_from_its_own_dockerfile(compose: dict[str, Service]) -> None:
    for room in ROOMS:
        build = compose[room]["build"]
        assert build["dockerfile"] == f"deploy/docker/{room}.Dockerfile"
        assert (FOLDER / build["context"]).resolve() == FOLDER.parents[1]
        assert (FOLDER.parents[1] / build["dockerfile"]).is_file()


def test_settings_are_known_to_their_services(
    compose: dict[str, Service], known_settings: dict[str, frozenset[str]]
) -> None:
    for room in ROOMS:
        given = {name for name in compose[room]["environment"] if name.startswith("LLMMESH_")}
        assert given <= known_settings[room], room


def test_names_that_depend_on_each_other_exist(compose: dict[str, Service]) -> None:
    declared = yaml.safe_load((FOLDER / "compose.yaml").read_text())["volumes"]
    for name, service in compose.items():
        assert set(service.get("depends_on", {})) <= set(compose), name
        named = {volume.split(":")[0] for volume in service.get("volumes", []) if volume[0] not in "./"}
        assert named <= set(declared), name


def test_who_is_waited_for_as_healthy_says_so(compose: dict[str, Service]) -> None:
    """Our own images carry their check; the others are given one here."""
    for service in compose.values():
        for name, wanted in service.get("depends_on", {}).items():
            if wanted["condition"] == "service_healthy":
                assert name in ROOMS or "healthcheck" in compose[name]
            if wanted["condition"] == "service_completed_successfully":
                assert name in ONCE


def test_envoy_looks_for_the_services_under_their_names_here(compose: dict[str, Service]) -> None:
    for cluster in all_clusters(containers("{room}")):
        if cluster["name"] in ROOMS:
            [locality] = cluster["load_assignment"]["endpoints"]
            address = locality["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]
            assert address["address"] in compose
    mesh = containers("{room}").mesh.port
    for room in ROOMS:
        assert compose[room]["environment"][f"LLMMESH_{room.upper()}_MESH_TARGET"] == f"envoy:{mesh}"


def test_our_containers_run_read_only_and_without_capabilities(compose: dict[str, Service]) -> None:
    for name in {*ROOMS, *ONCE, "envoy"}:
        service = compose[name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_a_stop_waits_for_the_drain(compose: dict[str, Service]) -> None:
    unless_told = ServiceSettings.model_fields["drain_seconds"].default
    for room in ROOMS:
        drain = compose[room]["environment"].get(f"LLMMESH_{room.upper()}_DRAIN_SECONDS", unless_told)
        assert int(compose[room]["stop_grace_period"].removesuffix("s")) > float(drain)


def test_the_gateway_stops_before_the_other_services_and_these_before_envoy_and_their_stores(
    compose: dict[str, Service],
) -> None:
    """Compose stops whoever depends on others before them."""
    after = {name: set(service.get("depends_on", {})) for name, service in compose.items()}
    TopologicalSorter(after).prepare()  # raises where one waits for itself
    assert after["gateway"] >= {*ROOMS} - {"gateway"}
    assert all("envoy" in after[room] for room in ROOMS)
    assert "redis" in after["router"] & after["cache"]
    assert "postgres" in after["billing"]


def test_services_start_without_waiting_for_each_other_to_be_healthy(compose: dict[str, Service]) -> None:
    for room in ROOMS:
        waited_for = compose[room]["depends_on"].items()
        assert all(how["condition"] == "service_started" for name, how in waited_for if name in {*ROOMS, "envoy"})


def test_a_new_configuration_of_envoy_starts_it_anew(compose: dict[str, Service]) -> None:
    assert compose["envoy"]["depends_on"]["envoy-config"]["restart"] is True


def test_redis_keeps_what_is_nowhere_else(compose: dict[str, Service]) -> None:
    command = compose["redis"]["command"]
    assert command[command.index("--appendonly") + 1] == "yes"
    assert "redis:/data" in compose["redis"]["volumes"]


def test_nothing_listens_beyond_this_machine_unless_asked(compose: dict[str, Service]) -> None:
    published = {name: service["ports"] for name, service in compose.items() if "ports" in service}
    assert published["envoy"] == ["127.0.0.1:8080:8080"]
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)


def test_no_secret_is_in_the_file() -> None:
    text = (FOLDER / "compose.yaml").read_text()
    assert re.findall(r"PASSWORD: +(?!\$\{)\S+", text) == []
    assert re.findall(r"://\w+:(?!\$\{)[^@/\s]+@", text) == []


def test_keys_in_the_folder_where_it_looks_for_them_are_not_committed() -> None:
    [folder] = set(re.findall(r"\$\{LLMMESH_TLS_FOLDER:-\./(\w+)\}", (FOLDER / "compose.mtls.yaml").read_text()))
    assert f"{folder}/" in (FOLDER / ".gitignore").read_text().split()


def test_files_it_mounts_are_in_the_tree(compose: dict[str, Service]) -> None:
    for service in compose.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source[0] != "." or (FOLDER / source).exists(), volume


def test_certificates_are_laid_over_every_service_and_envoy(compose: dict[str, Service]) -> None:
    document = yaml.safe_load(interpolated((FOLDER / "compose.mtls.yaml").read_text()))
    PyCompose.from_json(json.dumps(document))
    certified = document["services"]
    assert set(certified) == {*ROOMS, "envoy", "envoy-config"} <= set(compose)
    for name, service in certified.items():
        if name != "envoy":
            files = [f"{TLS}/{file}" for file in ("tls.crt", "tls.key", "ca.crt")]
            assert tls_from(service["environment"]) == Tls(*files)
        if name != "envoy-config":
            [volume] = service["volumes"]
            assert volume.endswith(f"/{name}:{TLS}:ro")
