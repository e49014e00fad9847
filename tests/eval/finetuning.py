"""The embedding model in PyTorch, for training adapters.

Layers, products and names are those of `services/inference/e5/graph.py`; weights are fixed, and only what an adapter
adds to them is trained.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from services.inference.e5.adapters import DOWN, UP, Adapter
from services.inference.e5.embeddings import Embeddings
from services.inference.e5.pieces import Pieces
from services.inference.e5.weights import ZERO, PackedModel

ATTENTION, INNER, OUTER = ("q", "k", "v"), ("fi",), ("fo",)


class Product(nn.Module):
    """`x W + b`, and `x down up` where it is adapted; several matrices that stand beside each other are one product."""

    def __init__(self, model: PackedModel, names: Sequence[str], rank: int) -> None:
        super().__init__()
        self.name = "+".join(names)
        self.weight: Tensor
        self.bias: Tensor
        bias = np.concatenate([model.numbers(f"{name}.b") for name in names])
        weight = np.concatenate([_matrix(model, f"{name}.w") for name in names]).reshape(len(bias), -1)
        self.register_buffer("weight", torch.from_numpy(weight), persistent=False)
        self.register_buffer("bias", torch.from_numpy(bias), persistent=False)
        self.rank = rank
        if rank:
            inputs = weight.shape[1]
            self.down = nn.Parameter(torch.randn(inputs, rank) / math.sqrt(inputs))
            self.up = nn.Parameter(torch.zeros(rank, len(bias)))

    def forward(self, states: Tensor) -> Tensor:
        """The product for each token."""
        product = functional.linear(states, self.weight, self.bias)
        return product + states @ self.down @ self.up if self.rank else product


class Normalised(nn.Module):
    """The sum of a layer's input and its change, normalised."""

    def __init__(self, model: PackedModel, name: str) -> None:
        super().__init__()
        self.parts: list[Tensor] = [torch.from_numpy(model.numbers(f"{name}.{part}").copy()) for part in "wb"]
        self.epsilon = model.epsilon

    def forward(self, states: Tensor, change: Tensor) -> Tensor:
        """The new states."""
        return functional.layer_norm(states + change, states.shape[-1:], *self.parts, self.epsilon)


class Layer(nn.Module):
    """One layer."""

    def __init__(self, model: PackedModel, number: int, rank: int) -> None:
        super().__init__()
        of = f"l{number}."
        self.heads = model.heads
        self.projected = Product(model, [of + name for name in ATTENTION], rank)
        self.attended = Product(model, [of + "ao"], 0)
        self.inner, self.outer = (Product(model, [of + name for name in names], rank) for names in (INNER, OUTER))
        self.after_attention, self.after_all = Normalised(model, of + "aln"), Normalised(model, of + "oln")

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """The next states of all tokens."""
        texts, tokens, width = states.shape
        sides = self.projected(states).view(texts, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(*sides, attn_mask=mask[:, None, None, :])
        seen = seen.transpose(1, 2).reshape(texts, tokens, width)
        states = self.after_attention(states, self.attended(seen))
        changed: Tensor = self.after_all(states, self.outer(functional.gelu(self.inner(states))))
        return changed


class Trainable(nn.Module):
    """The model with an adapter of `rank` on the layers from `first_adapted` on; its parameters are the adapter's."""

    def __init__(self, *, rank: int, first_adapted: int) -> None:
        super().__init__()
        model = self._model = PackedModel(None)
        self._pieces, self._embeddings = Pieces(model), Embeddings(model)
        self.width, self.first_adapted = model.width, first_adapted
        self.layers = nn.ModuleList(
            Layer(model, number, rank if number >= first_adapted else 0) for number in range(model.layers)
        )

    def tokens(self, text: str, prefix: str = "query:") -> list[int]:
        """The text as the service reads it."""
        own = [*self._pieces.of(prefix), *self._pieces.of(text)]
        return [self._model.begin, *own[: self._model.positions - 2], self._model.end]

    @torch.no_grad()
    def fixed(self, tokens: Sequence[int]) -> Tensor:
        """What the layers below the adapter make of a text: computed once, it serves every step of a training."""
        states = torch.from_numpy(self._embeddings.of(tokens))
        return self._through(states, torch.ones(1, len(tokens), dtype=torch.bool), 0, self.first_adapted)[0]

    def forward(self, fixed: Sequence[Tensor]) -> Tensor:
        """The vectors of texts, of length 1, from what `fixed` made of them."""
        states = nn.utils.rnn.pad_sequence(list(fixed), batch_first=True)
        lengths = torch.tensor([len(each) for each in fixed])
        mask = torch.arange(states.shape[1]) < lengths[:, None]
        states = self._through(states, mask, self.first_adapted, len(self.layers))
        return functional.normalize((states * mask[..., None]).sum(1), dim=-1)

    def adapter(self) -> Adapter:
        """What was trained, as `adapters.py` has it."""
        adapted = [part for part in self.modules() if isinstance(part, Product) and part.rank]
        sides = {f"{part.name}.{side}": matrix for part in adapted for side, matrix in _sides(part)}
        return {name: matrix.detach().numpy().copy() for name, matrix in sides.items()}

    def _through(self, states: Tensor, mask: Tensor, start: int, end: int) -> Tensor:
        for layer in self.layers[start:end]:
            states = layer(states, mask)
        return states


def _sides(product: Product) -> list[tuple[str, Tensor]]:
    return [(DOWN, product.down), (UP, product.up)]


def _matrix(model: PackedModel, name: str) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    scales, codes = model.blocks(name)
    numbers = (codes - np.float32(ZERO)) * scales[:, None]
    return numbers.astype(np.float32, copy=False).ravel()
