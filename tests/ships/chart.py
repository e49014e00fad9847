"""The Helm chart, rendered as its users render it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[2] / "deploy" / "k8s"
CHART = DEPLOY / "llmmesh"

Manifest = dict[str, Any]
"""One Kubernetes object."""


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Helm; the caller looks at the exit status."""
    command = [str(DEPLOY / "helm.sh"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def rendered(*values: str) -> list[Manifest]:
    """Every object of the chart; `values` are arguments of Helm that change some."""
    output = helm("template", "llmmesh", str(CHART), *values)
    assert output.returncode == 0, output.stderr
    return [manifest for manifest in yaml.safe_load_all(output.stdout) if manifest]


def of_kind(manifests: list[Manifest], kind: str) -> dict[str, Manifest]:
    """Objects of a kind by the component they belong to."""
    return {
        manifest["metadata"]["labels"]["app.kubernetes.io/component"]: manifest
        for manifest in manifests
        if manifest["kind"] == kind and not manifest["metadata"]["name"].endswith("-envoy-mesh")
    }


def container_of(deployment: Manifest) -> Manifest:
    """Its only container."""
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    assert isinstance(container, dict)
    return container
