"""The Helm chart: every object valid, every pod hardened, every name the services' own."""

from __future__ import annotations

import base64
import json
from typing import get_args
from urllib.parse import urlsplit

import jsonschema_rs
import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from deploy.envoy.catalogue import DESCRIPTOR_SET, ROOMS
from deploy.envoy.render import to_yaml
from deploy.envoy.topology import Tls, containers
from services.billing.config import BillingConfig
from services.router.endpoints import AnyDeployment
from tests.ships.chart import CHART, Manifest, container_of, helm, of_kind, rendered

VARIANTS = ["default", *sorted(path.name.removesuffix("-values.yaml") for path in CHART.glob("ci/*-values.yaml"))]
WORKLOADS = {*ROOMS, "envoy"}
LARGEST_CONFIG_MAP_BYTES = 1024 * 1024
LARGEST_ANNOTATION_BYTES = 262_144
"""A client-side apply keeps a whole object in one."""
CONNECTIONS_BESIDE_THE_POOL = 6
POSTGRES_CONNECTIONS = 97
"""Of the 100 it takes by default, three are kept for its superuser."""
TLS = "/etc/llmmesh-tls"

CERTIFICATE = {
    "type": "object",
    "additionalProperties": False,
    "required": ["secretName", "issuerRef", "dnsNames"],
    "properties": {
        "secretName": {"type": "string", "maxLength": 253},
        "commonName": {"type": "string", "maxLength": 64},
        "dnsNames": {"type": "array", "items": {"type": "string"}, "minItems": 1},
        "usages": {
            "items": {"enum": ["digital signature", "key encipherment", "server auth", "client auth"]},
            "type": "array",
        },
        "privateKey": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "algorithm": {"enum": ["RSA", "ECDSA", "Ed25519"]},
                "size": {"type": "integer"},
                "rotationPolicy": {"enum": ["Never", "Always"]},
            },
        },
        "duration": {"type": "string"},
        "renewBefore": {"type": "string"},
        "issuerRef": {
            "type": "object",
            "additionalProperties": False,
            "required": ["name"],
            "properties": {name: {"type": "string", "minLength": 1} for name in ("name", "kind", "group")},
        },
    },
}
"""What the chart uses of a Certificate, as cert-manager.io/docs/reference/api-docs has it."""


def values_of(variant: str) -> list[str]:
    """Arguments that choose a variant."""
    return [] if variant == "default" else ["--values", str(CHART / "ci" / f"{variant}-values.yaml")]


@pytest.fixture(scope="module", params=VARIANTS)
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    """Everything one variant of values renders to."""
    return rendered(*values_of(request.param))


@pytest.fixture(scope="module")
def shipped() -> list[Manifest]:
    """Everything the default values render to."""
    return rendered()


@pytest.mark.parametrize("variant", VARIANTS)
def test_helm_finds_nothing_to_complain_about(variant: str) -> None:
    linted = helm("lint", "--strict", str(CHART), *values_of(variant))
    assert linted.returncode == 0, linted.stdout + linted.stderr


def test_every_object_is_what_kubernetes_expects(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        if manifest["apiVersion"] == "cert-manager.io/v1":
            jsonschema_rs.validate(CERTIFICATE, manifest["spec"])
        else:
            kubernetes_validate.validate(manifest, "1.37", strict=True)


def test_names_are_unique(manifests: list[Manifest]) -> None:
    names = [(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests]
    assert len(names) == len(set(names))


def test_every_service_and_envoy_has_a_deployment_a_disruption_budget_and_an_account(
    manifests: list[Manifest],
) -> None:
    for kind in ("Deployment", "PodDisruptionBudget", "ServiceAccount", "Service"):
        assert set(of_kind(manifests, kind)) >= WORKLOADS, kind


def test_every_deployment_scales_down_slower_than_it_drains(shipped: list[Manifest]) -> None:
    deployments, scalers = of_kind(shipped, "Deployment"), of_kind(shipped, "HorizontalPodAutoscaler")
    assert set(scalers) == WORKLOADS
    for component, scaler in scalers.items():
        assert scaler["spec"]["scaleTargetRef"]["name"] == deployments[component]["metadata"]["name"]
        assert scaler["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"] >= 300
        assert "replicas" not in deployments[component]["spec"]


def test_what_runs_on_a_gpu_is_not_scaled_by_its_cpu(manifests: list[Manifest]) -> None:
    for component, deployment in of_kind(manifests, "Deployment").items():
        if "nvidia.com/gpu" in container_of(deployment)["resources"]["limits"]:
            assert component not in of_kind(manifests, "HorizontalPodAutoscaler")
            assert deployment["spec"]["replicas"] > 1


def test_billing_as_large_as_it_grows_leaves_postgres_connections(shipped: list[Manifest]) -> None:
    each = BillingConfig.model_fields["database_connections"].default + CONNECTIONS_BESIDE_THE_POOL
    pods_while_rolled_out = of_kind(shipped, "HorizontalPodAutoscaler")["billing"]["spec"]["maxReplicas"] + 1
    assert each * pods_while_rolled_out < POSTGRES_CONNECTIONS


def test_a_rollout_waits_longer_than_a_pod_may_take_to_start(manifests: list[Manifest]) -> None:
    for deployment in of_kind(manifests, "Deployment").values():
        probe = container_of(deployment)["startupProbe"]
        assert deployment["spec"]["progressDeadlineSeconds"] > probe["periodSeconds"] * probe["failureThreshold"]


def test_a_cache_that_keeps_its_vectors_itself_has_memory_for_them(manifests: list[Manifest]) -> None:
    cache = container_of(of_kind(manifests, "Deployment")["cache"])
    embedded = "LLMMESH_CACHE_QDRANT_URL" not in {variable["name"] for variable in cache["env"]}
    assert cache["resources"]["limits"] == {"cpu": "2", "memory": "1536Mi" if embedded else "512Mi"}


def test_every_container_is_probed_and_limited(manifests: list[Manifest]) -> None:
    for deployment in of_kind(manifests, "Deployment").values():
        container = container_of(deployment)
        assert {"startupProbe", "readinessProbe", "livenessProbe", "lifecycle"} <= set(container)
        assert set(container["resources"]["limits"]) >= {"cpu", "memory"}
        assert set(container["resources"]["requests"]) >= {"cpu", "memory"}


def test_no_pod_may_do_more_than_it_needs(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        if manifest["kind"] not in ("Deployment", "Job"):
            continue
        pod = manifest["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_grace_covers_the_drain(manifests: list[Manifest]) -> None:
    for room, deployment in of_kind(manifests, "Deployment").items():
        if room == "envoy":
            continue
        container = container_of(deployment)
        drain = next(
            int(variable["value"]) for variable in container["env"] if variable["name"].endswith("_DRAIN_SECONDS")
        )
        settle = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > settle + drain


def test_settings_are_known_to_their_services(
    manifests: list[Manifest], known_settings: dict[str, frozenset[str]]
) -> None:
    for room, deployment in of_kind(manifests, "Deployment").items():
        given = {variable["name"] for variable in container_of(deployment).get("env", [])}
        assert {name for name in given if name.startswith("LLMMESH_")} <= known_settings.get(room, frozenset()), room


def test_envoy_looks_for_the_services_where_the_chart_puts_them(shipped: list[Manifest]) -> None:
    services, config_map = of_kind(shipped, "Service"), of_kind(shipped, "ConfigMap")["envoy"]
    clusters = yaml.safe_load(config_map["data"]["envoy.yaml"])["static_resources"]["clusters"]
    found = {cluster["name"]: _address(cluster) for cluster in clusters}
    for room in ROOMS:
        service = services[room]
        [port] = [port["port"] for port in service["spec"]["ports"] if port["name"] == "grpc"]
        assert found[room] == (service["metadata"]["name"], port)
        assert service["spec"]["clusterIP"] == "None"


def _address(cluster: Manifest) -> tuple[str, int]:
    [locality] = cluster["load_assignment"]["endpoints"]
    [host] = locality["lb_endpoints"]
    address = host["endpoint"]["address"]["socket_address"]
    return address["address"], address["port_value"]


def test_services_look_for_the_mesh_where_envoy_listens(shipped: list[Manifest]) -> None:
    [mesh] = [manifest for manifest in shipped if manifest["metadata"]["name"].endswith("-envoy-mesh")]
    expected = f"dns:///{mesh['metadata']['name']}:{mesh['spec']['ports'][0]['port']}"
    for room in ROOMS:
        environment = container_of(of_kind(shipped, "Deployment")[room])["env"]
        assert {"name": f"LLMMESH_{room.upper()}_MESH_TARGET", "value": expected} in environment


def test_the_chart_carries_the_envoy_configuration_of_this_tree(shipped: list[Manifest]) -> None:
    """`deploy/k8s/render.sh` brings it up to date."""
    assert (CHART / "files" / "envoy.yaml").read_text() == to_yaml(containers("@fullname@-{room}"))
    certified = containers("@fullname@-{room}", tls=Tls(f"{TLS}/tls.crt", f"{TLS}/tls.key", f"{TLS}/ca.crt"))
    assert (CHART / "files" / "envoy-mtls.yaml").read_text() == to_yaml(certified)
    config_map = of_kind(shipped, "ConfigMap")["envoy"]
    assert base64.b64decode(config_map["binaryData"]["mesh.binpb"]) == DESCRIPTOR_SET.read_bytes()
    assert len(yaml.safe_dump(config_map)) < LARGEST_CONFIG_MAP_BYTES


def test_only_envoy_reaches_the_services_and_only_the_router_leaves(shipped: list[Manifest]) -> None:
    policies = of_kind(shipped, "NetworkPolicy")
    assert set(policies) == WORKLOADS
    for room in ROOMS:
        spec = policies[room]["spec"]
        callers = [rule["from"] for rule in spec["ingress"] if rule["ports"][0]["port"] == "grpc"]
        assert [peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for [peer] in callers] == ["envoy"]
        outside = [peer for rule in spec["egress"] for peer in rule.get("to", []) if "ipBlock" in peer]
        assert bool(outside) == (room == "router")


def test_the_router_reaches_every_port_its_adapters_call_unless_told_otherwise(shipped: list[Manifest]) -> None:
    rules = of_kind(shipped, "NetworkPolicy")["router"]["spec"]["egress"]
    outside = [rule for rule in rules if any("ipBlock" in peer for peer in rule.get("to", []))]
    adapters = get_args(get_args(AnyDeployment)[0])
    defaults = [field.default for adapter in adapters for field in adapter.model_fields.values()]
    urls = [urlsplit(value) for value in defaults if isinstance(value, str) and value.startswith("https://")]
    assert urls
    assert {url.port or 443 for url in urls} <= {port["port"] for rule in outside for port in rule["ports"]}


def test_what_is_too_large_for_a_client_side_apply_is_marked(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        if len(json.dumps(manifest)) > LARGEST_ANNOTATION_BYTES:
            options = manifest["metadata"]["annotations"]["argocd.argoproj.io/sync-options"]
            assert options == "ServerSideApply=true"


def test_secrets_are_named_never_held(manifests: list[Manifest]) -> None:
    assert not [manifest for manifest in manifests if manifest["kind"] == "Secret"]


def test_new_routes_restart_no_router_and_other_files_restart_their_service(shipped: list[Manifest]) -> None:
    annotated = {
        room: "checksum/files" in deployment["spec"]["template"]["metadata"]["annotations"]
        for room, deployment in of_kind(shipped, "Deployment").items()
        if room in ROOMS
    }
    assert annotated == {room: room != "router" for room in annotated}


def test_with_certificates_nothing_between_envoy_and_the_services_is_plain() -> None:
    manifests = rendered(*values_of("mtls"))
    certificates = of_kind(manifests, "Certificate")
    assert set(certificates) == WORKLOADS
    for component, deployment in of_kind(manifests, "Deployment").items():
        pod, container = deployment["spec"]["template"]["spec"], container_of(deployment)
        [secret] = [volume["secret"]["secretName"] for volume in pod["volumes"] if volume["name"] == "tls"]
        spec = certificates[component]["spec"]
        assert (spec["secretName"], spec["dnsNames"]) == (secret, [f"{component}.llmmesh", "localhost"])
        assert {"name": "tls", "mountPath": TLS, "readOnly": True} in container["volumeMounts"]
        if component != "envoy":
            given = {
                each["name"]: each["value"] for each in container["env"] if each["name"].startswith("LLMMESH_TLS_")
            }
            assert given == {
                "LLMMESH_TLS_CERTIFICATE": f"{TLS}/tls.crt",
                "LLMMESH_TLS_KEY": f"{TLS}/tls.key",
                "LLMMESH_TLS_AUTHORITY": f"{TLS}/ca.crt",
            }
            assert not [probe for probe in ("startupProbe", "readinessProbe") if "grpc" in container[probe]]
    config = of_kind(manifests, "ConfigMap")["envoy"]["data"]["envoy.yaml"]
    clusters = yaml.safe_load(config)["static_resources"]["clusters"]
    assert {cluster["name"] for cluster in clusters if "transport_socket" in cluster} >= set(ROOMS)


def test_without_certificates_nobody_asks_for_one(shipped: list[Manifest]) -> None:
    assert "llmmesh-tls" not in yaml.safe_dump_all(shipped)
    assert not of_kind(shipped, "Certificate")
