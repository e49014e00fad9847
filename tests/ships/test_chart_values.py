"""What a user of the Helm chart writes into its values reaches the pods, or is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.ships.chart import CHART, container_of, helm, of_kind, rendered


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        (["services.gateway.drainseconds=3"], "drainseconds"),
        (["services.cache.secretSettings.qdrant_url=null"], "the embedded vector store belongs to one pod"),
        (["services.guard.autoscaling.minReplicas=20"], "minReplicas is above maxReplicas"),
        (["mtls.enabled=true", "mtls.certManager.enabled=true"], "needs issuer.name"),
        (["mtls.certManager.enabled=true"], "unless mtls.enabled"),
        (["services.billing.storage.claim=disk"], "storage.claim belongs to one pod"),
        (["envoy.settings.log_level=debug"], "settings"),
        (["envoy.environmentSecrets[0]=idp"], "environmentSecrets"),
    ],
)
def test_a_mistake_in_the_values_is_named(values: list[str], complaint: str) -> None:
    output = helm("template", "llmmesh", str(CHART), "--set", ",".join(values))
    assert output.returncode != 0
    assert complaint in output.stderr


@pytest.mark.parametrize(
    ("value", "written"), [(3_000_000, "3000000"), (0.25, "0.25"), (True, "true"), ("3e6 of them", "3e6 of them")]
)
def test_a_setting_reaches_its_service_as_it_was_written(value: Any, written: str, tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump({"services": {"guard": {"settings": {"longest_text_characters": value}}}}))
    guard = container_of(of_kind(rendered("--values", str(values)), "Deployment")["guard"])
    assert {"name": "LLMMESH_GUARD_LONGEST_TEXT_CHARACTERS", "value": written} in guard["env"]


def test_envoy_finds_secrets_it_is_given_as_files() -> None:
    envoy = of_kind(rendered("--set", "envoy.secretFiles.idp=idp-ca"), "Deployment")["envoy"]
    volumes = {volume["name"]: volume for volume in envoy["spec"]["template"]["spec"]["volumes"]}
    assert volumes["secret-idp"]["secret"]["secretName"] == "idp-ca"
    mount = {"name": "secret-idp", "mountPath": "/etc/llmmesh-secrets/idp", "readOnly": True}
    assert mount in container_of(envoy)["volumeMounts"]
