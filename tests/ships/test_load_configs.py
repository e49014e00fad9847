"""The ghz configurations: every call exists and every payload is a request of it."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path

import pytest

from deploy.envoy.catalogue import DESCRIPTOR_SET, ROOMS, read_methods
from tests.load.frame import framed
from tests.load.rpcs import FOLDER, read_rpc

NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
GIVEN: defaultdict[str, str] = defaultdict(lambda: "127.0.0.1:1")
"""Any variable, filled in."""


def test_every_service_has_one() -> None:
    assert set(ROOMS) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_call_exists_and_belongs_to_its_service(name: str) -> None:
    [method] = [method for method in read_methods() if method.path == read_rpc(name, GIVEN).path]
    assert method.room == name.partition(".")[0]


@pytest.mark.parametrize("name", NAMES)
def test_the_payload_is_a_request_that_survives_its_frame(name: str) -> None:
    request = read_rpc(name, GIVEN).request(1)
    frame = framed(request)
    assert frame[0] == 0
    assert int.from_bytes(frame[1:5], "big") == len(frame) - 5
    assert type(request).FromString(frame[5:]) == request


@pytest.mark.parametrize("name", NAMES)
def test_ghz_finds_the_descriptor_set(name: str) -> None:
    config = json.loads((FOLDER / f"{name}.json").read_text())
    assert Path(__file__).parents[2] / config["protoset"] == DESCRIPTOR_SET


@pytest.mark.parametrize("name", NAMES)
def test_credentials_come_from_the_running_mesh(name: str) -> None:
    text = (FOLDER / f"{name}.json").read_text()
    assert set(re.findall(r"\$\{(\w+)\}", text)) & {"LLMMESH_API_KEY", "LLMMESH_TENANT"}


def test_reservations_differ_from_call_to_call() -> None:
    rpc = read_rpc("billing", GIVEN)
    assert rpc.varies
    assert rpc.request(1) != rpc.request(2)
