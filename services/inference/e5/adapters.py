"""Adapters: changes to the model's matrices that are trained for one task, a few hundred thousand numbers each.

To a product `x W` an adapter adds `x down up`, where `down` and `up` are narrow (LoRA, arXiv:2106.09685). All adapters
share one session with the plain model: their matrices are given with each text. A product goes by the names of the
file's matrices, `l11.fi` or `l11.q+l11.k+l11.v`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOLDER = Path(__file__).with_name("trained")
NONE = ""
"""The name of the plain model."""

Adapter = Mapping[str, NDArray[np.float32]]
"""Matrices by `product.down` and `product.up`; a row for each number that comes in."""
DOWN, UP = "down", "up"
NOTHING = np.zeros((0, 0), np.float32)


class AdapterInvalid(Exception):
    """An adapter that was made for another model."""


def load_adapters(folder: Path = FOLDER) -> dict[str, Adapter]:
    """All adapters of a folder by name."""
    return {path.stem: _read(path) for path in sorted(folder.glob("*.npz"))}


def save_adapter(adapter: Adapter, path: Path) -> None:
    """Write an adapter in half precision, without pickle."""
    path.parent.mkdir(exist_ok=True)
    halves: dict[str, Any] = {name: matrix.astype(np.float16) for name, matrix in adapter.items()}
    np.savez_compressed(path, **halves)


def products(adapter: Adapter) -> set[str]:
    """What an adapter changes."""
    return {name.rpartition(".")[0] for name in adapter}


def check(name: str, adapter: Adapter, sizes: Mapping[str, tuple[int, int]]) -> None:
    """See that an adapter fits products of these sizes.

    Raises:
        AdapterInvalid: If it does not.
    """
    for product in products(adapter):
        down, up = (adapter.get(f"{product}.{side}", NOTHING).shape for side in (DOWN, UP))
        if product not in sizes or (down[0], up[1]) != sizes[product] or down[1] != up[0]:
            raise AdapterInvalid(
                f"adapter {name!r} has {product} of {down} and {up}, the model of {sizes.get(product)}"
            )


def _read(path: Path) -> Adapter:
    with np.load(path, allow_pickle=False) as file:
        return {name: np.ascontiguousarray(file[name], np.float32) for name in file.files}
