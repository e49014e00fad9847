"""Setting up and clearing up: a second try mends the first, and nobody else's folder is touched."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.local.settings import REPOSITORY

SETUP = Path("deploy/local/setup.sh")


@pytest.mark.parametrize(
    ("task", "variable"),
    [("clean-data", "LLMMESH_VAR"), ("eval-guard", "LLMMESH_VAR"), ("models", "LLMMESH_MODELS_DIR")],
)
def test_a_folder_with_a_space_in_its_name_is_one_folder(task: str, variable: str, tmp_path: Path) -> None:
    folder = tmp_path / "my data"
    printed = subprocess.run(
        ["make", "--dry-run", task, f"{variable}={folder}"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    named = [word for word in shlex.split(printed) if word.startswith(str(tmp_path))]
    assert named
    assert all(word.startswith(str(folder)) for word in named)


def test_an_environment_left_without_pip_is_made_anew(tmp_path: Path) -> None:
    pytest.importorskip("ensurepip")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / ".venv"], check=True)
    (tmp_path / SETUP).parent.mkdir(parents=True)
    shutil.copy(REPOSITORY / SETUP, tmp_path / SETUP)
    (tmp_path / "deploy" / "docker").mkdir()
    (tmp_path / "deploy" / "docker" / "installer.lock").touch()
    # It goes no further than this folder allows: nothing to install with, no lock.
    environment = {"PATH": str(few_tools(tmp_path / "tools")), "PYTHON3": sys.executable, "PIP_NO_INDEX": "1"}
    subprocess.run([str(shutil.which("bash")), tmp_path / SETUP], env=environment, capture_output=True, check=False)
    subprocess.run([tmp_path / ".venv" / "bin" / "python", "-m", "pip", "--version"], capture_output=True, check=True)


def few_tools(folder: Path) -> Path:
    """A folder of programs without uv and apt."""
    folder.mkdir()
    for name in ("dirname", "id", "sed"):
        (folder / name).symlink_to(str(shutil.which(name)))
    return folder
