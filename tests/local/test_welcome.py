"""What a person is told once the mesh runs: commands that the models in force can answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.local.report import welcome
from deploy.local.settings import LocalSettings

ROUTES = """
deployments:
  - {name: local/e5, adapter: local, model: e5, serves: e5, embeds: true}
  - {name: local/trial, adapter: local, model: small, serves: trial, shadow: {share_percent: 1}}
  - {name: cloud/big, adapter: openai, model: big-2, serves: big}
  - {name: local/small, adapter: local, model: small, serves: little}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """State of a mesh that runs."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mesh.env").write_text("export LLMMESH_URL=http://127.0.0.1:1\nexport LLMMESH_API_KEY=k\n")
    return tmp_path


def told(folder: Path, **variables: str) -> str:
    """What is said of a mesh below `folder`."""
    return welcome(LocalSettings.read({"LLMMESH_VAR": str(folder), **variables}))


def test_the_packaged_model_is_asked_unless_another_is_chosen(folder: Path) -> None:
    assert told(folder).count('"smollm2-135m"') == 3


@pytest.mark.parametrize(("loaded", "model"), [("small=/models/small", "little"), ("none", "big"), ("other", "big")])
def test_of_the_routes_a_loaded_model_is_asked_and_else_one_elsewhere(folder: Path, loaded: str, model: str) -> None:
    routes = folder / "routes.yaml"
    routes.write_text(ROUTES)
    assert told(folder, LLMMESH_ROUTES=str(routes), LLMMESH_LOCAL_MODELS=loaded).count(f'"{model}"') == 3


def test_where_no_model_chats_no_command_is_told(folder: Path) -> None:
    said = told(folder, LLMMESH_LOCAL_MODELS="none")
    assert "http://127.0.0.1:1/v1" in said
    assert "No chat model is served" in said
    assert "curl" not in said
