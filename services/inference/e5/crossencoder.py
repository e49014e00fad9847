"""Whether two texts ask the same: the lower layers of the model, with an adapter, read both at once.

Where the plain model makes a vector of each text and cosines compare them, here every token of one sees those of the
other from the first layer on. The head takes three vectors, the first token's, the mean of both texts' means, and how
far these lie apart, normalises them together, and weighs them. `make train-cache-crossencoder` writes the weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.inference.e5.adapters import Adapter, check, products
from services.inference.e5.embeddings import Inputs
from services.inference.e5.graph import INPUT, Layers, session, state

WEIGHTS = Path(__file__).with_name("crossencoder.npz")
LAYERS = 9
"""Of the model's twelve: the upper three sort pairs no better, for a quarter of the time."""
HEAD = ("normalised.weight", "normalised.bias", "weighed.weight", "weighed.bias")
EPSILON = 1e-5


class CrossEncoder:
    """Scores pairs. It keeps no state between them: threads may share it."""

    def __init__(self, inputs: Inputs | None = None, path: Path = WEIGHTS) -> None:
        """`inputs` are shared with an encoder of the same model.

        Raises:
            AdapterInvalid: If the weights are for another model.
        """
        self._adapter, head = load(path)
        self.name = _fingerprint({**self._adapter, **head})
        """Changes with the weights: scores of two cross-encoders cannot be compared."""
        self._scale, self._shift, self._weights, (self._bias,) = (head[name] for name in HEAD)
        self._inputs = inputs or Inputs.of()
        layers = Layers(self._inputs.model, products(self._adapter))
        self._session = session(layers.graph([LAYERS]))
        check(self.name, self._adapter, layers.sizes)

    def log_odds(self, first: str, second: str) -> float:
        """Logarithm of the odds that both ask the same."""
        tokens, start = as_one(self._inputs, first, second)
        given = {INPUT: self._inputs.embeddings.of(tokens), **self._adapter}
        ((states,),) = self._session.run([state(LAYERS)], given)
        one, other = states[:start].mean(axis=0), states[start:].mean(axis=0)
        seen = np.concatenate([states[0], (one + other) / 2, np.abs(one - other)])
        seen = (seen - seen.mean()) / np.sqrt(seen.var() + EPSILON) * self._scale + self._shift
        return float(seen @ self._weights + self._bias)


def as_one(inputs: Inputs, first: str, second: str) -> tuple[list[int], int]:
    """The tokens of both texts behind each other, and where those of the second start.

    Each text is read until half of what the model takes. The "query:" that embeddings begin with is left out: it would
    be a quarter of what is computed for two short questions, and training makes up for it.
    """
    one, other = (inputs.marked((), inputs.pieces.of(text), inputs.model.positions // 2) for text in (first, second))
    return [*one, *other[1:]], len(one)


def load(path: Path = WEIGHTS) -> tuple[Adapter, dict[str, NDArray[np.float32]]]:
    """The adapter and the head that `save` wrote."""
    with np.load(path, allow_pickle=False) as file:
        weights = {name: np.ascontiguousarray(file[name], np.float32) for name in file.files}
    head = {name: weights.pop(name) for name in HEAD}
    return weights, head


def save(adapter: Adapter, head: Mapping[str, NDArray[np.float32]], path: Path = WEIGHTS) -> None:
    """Write the weights, the adapter's in half precision, without pickle."""
    weights: dict[str, Any] = {name: matrix.astype(np.float16) for name, matrix in adapter.items()}
    np.savez_compressed(path, **weights | {name: head[name] for name in HEAD})


def _fingerprint(weights: Mapping[str, NDArray[np.float32]]) -> str:
    digest = hashlib.sha256()
    for name, matrix in sorted(weights.items()):
        digest.update(name.encode() + matrix.tobytes())
    return digest.hexdigest()[:8]
