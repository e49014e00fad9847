import json
import sys
from dataclasses import replace

import pytest

from services.inference.models import (
    ORIGIN_FILE,
    SMOLLM2,
    ConversionFailed,
    convert,
    locked,
    origin_of,
    packaged_file,
    replace_folder,
)


@pytest.fixture
def packaged(tmp_path, monkeypatch):
    """A package that carries a file, and would fail if it were imported."""
    package = tmp_path / "site" / "small_model"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("import a_module_nobody_has\n")
    (package / "weights.gguf").write_bytes(b"weights")
    monkeypatch.syspath_prepend(package.parent)
    yield replace(SMOLLM2, name="small", package="small_model", file="weights.gguf")
    sys.modules.pop("small_model", None)


def test_weights_are_found_without_importing_their_package(packaged, tmp_path):
    assert packaged_file(packaged) == tmp_path / "site" / "small_model" / "weights.gguf"
    assert "small_model" not in sys.modules


def test_a_missing_package_is_named(tmp_path):
    with pytest.raises(ConversionFailed, match=r"no_such_package.*inference-cpu"):
        convert(replace(SMOLLM2, package="no_such_package"), tmp_path)


def test_a_folder_made_from_the_same_file_stays(packaged, tmp_path, capsys):
    folder = tmp_path / "models" / "small"
    folder.mkdir(parents=True)
    origin = origin_of(packaged, packaged_file(packaged))
    (folder / ORIGIN_FILE).write_text(json.dumps(origin))
    assert convert(packaged, folder.parent) == folder
    assert "already converted" in capsys.readouterr().out


def test_the_origin_changes_with_the_weights(packaged):
    before = origin_of(packaged, packaged_file(packaged))
    packaged_file(packaged).write_bytes(b"other weights")
    assert origin_of(packaged, packaged_file(packaged)) != before


def test_a_new_folder_takes_the_place_of_the_old_one(tmp_path):
    old, new = tmp_path / "model", tmp_path / "new"
    for folder, text in ((old, "old"), (new, "new")):
        folder.mkdir()
        (folder / "weights").write_text(text)
    replace_folder(new, old)
    assert (old / "weights").read_text() == "new"
    assert not new.exists()


def test_a_lock_is_free_again_after_its_block(tmp_path):
    for _ in range(2):
        with locked(tmp_path / "lock"):
            pass
