"""The embedding model in PyTorch, for training adapters.

Layers, products and names are those of `services/inference/e5/graph.py`; weights are fixed, and only what an adapter
adds to them is trained.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from services.inference.e5.adapters import DOWN, UP, Adapter
from services.inference.e5.embeddings import Inputs
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
    """The model with an adapter of `rank` on the layers from `first_adapted` on; its parameters are the adapter's.

    With `layers` it ends early.
    """

    def __init__(self, *, rank: int, first_adapted: int, layers: int | None = None) -> None:
        super().__init__()
        self.inputs = Inputs.of()
        model = self.inputs.model
        self.width, self.first_adapted = model.width, first_adapted
        self.layers = nn.ModuleList(
            Layer(model, number, rank if number >= first_adapted else 0) for number in range(layers or model.layers)
        )

    def tokens(self, text: str, prefix: str = "query:") -> list[int]:
        """A text as the service reads it."""
        pieces = self.inputs.pieces
        return self.inputs.marked(pieces.of(prefix), pieces.of(text), self.inputs.model.positions)

    @torch.no_grad()
    def fixed(self, tokens: Sequence[int]) -> Tensor:
        """What the layers below the adapter make of a text: computed once, it serves every step of a training."""
        states = torch.from_numpy(self.inputs.embeddings.of(tokens))
        return self._through(states, torch.ones(1, len(tokens), dtype=torch.bool), 0, self.first_adapted)[0]

    @torch.no_grad()
    def fixed_all(self, texts: Sequence[Sequence[int]]) -> list[Tensor]:
        """As `fixed`, of many texts, in half precision."""
        found: dict[int, Tensor] = {}
        for places in batched([len(tokens) for tokens in texts], 1024, np.random.default_rng(0)):
            embedded = [torch.from_numpy(self.inputs.embeddings.of(texts[place])[0]) for place in places]
            states, mask = _padded(embedded)
            through = self._through(states, mask, 0, self.first_adapted).to(torch.float16)
            found.update(
                (place, rows[: len(texts[place])].clone()) for place, rows in zip(places, through, strict=True)
            )
        return [found[place] for place in range(len(texts))]

    def forward(self, fixed: Sequence[Tensor]) -> Tensor:
        """The vectors of texts, of length 1, from what `fixed` made of them."""
        states, mask = self.states(fixed)
        return functional.normalize((states * mask[..., None]).sum(1), dim=-1)

    def states(self, fixed: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """What the layers make of the tokens of texts, and which tokens there are."""
        states, mask = _padded(fixed)
        return self._through(states, mask, self.first_adapted, len(self.layers)), mask

    def adapter(self) -> Adapter:
        """What was trained, as `adapters.py` has it."""
        return {name: matrix.detach().numpy().copy() for name, matrix in self._adapted()}

    def continue_from(self, adapter: Adapter) -> None:
        """Train on from what `adapter` returned in an earlier training; what is of higher rank now adds nothing yet."""
        for name, matrix in self._adapted():
            rows, columns = adapter[name].shape
            matrix.data[:rows, :columns] = torch.from_numpy(adapter[name])

    def _adapted(self) -> list[tuple[str, nn.Parameter]]:
        adapted = [part for part in self.modules() if isinstance(part, Product) and part.rank]
        return [
            (f"{part.name}.{side}", matrix) for part in adapted for side, matrix in ((DOWN, part.down), (UP, part.up))
        ]

    def _through(self, states: Tensor, mask: Tensor, start: int, end: int) -> Tensor:
        for layer in self.layers[start:end]:
            states = layer(states, mask)
        return states


def _padded(texts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Texts beside each other, and which tokens there are."""
    lengths = torch.tensor([len(each) for each in texts])
    states = nn.utils.rnn.pad_sequence(list(texts), batch_first=True)
    return states, torch.arange(states.shape[1]) < lengths[:, None]


def _matrix(model: PackedModel, name: str) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    scales, codes = model.blocks(name)
    numbers = (codes - np.float32(ZERO)) * scales[:, None]
    return numbers.astype(np.float32, copy=False).ravel()


Random = np.random.Generator


def batched(lengths: Sequence[int], most_tokens: int, chance: Random) -> list[list[int]]:
    """Places of texts of about the same length together, a little otherwise each time."""
    about = np.array(lengths) + chance.random(len(lengths)) * 6
    batches: list[list[int]] = [[]]
    for place in np.argsort(about).tolist():
        if (len(batches[-1]) + 1) * lengths[place] > most_tokens and batches[-1]:
            batches.append([])
        batches[-1].append(place)
    return batches


def optimise(
    groups: Iterable[tuple[Iterable[nn.Parameter], float]],
    batches: Sequence[Sequence[int]],
    loss_of: Callable[[Sequence[int]], Tensor],
    *,
    warm_up: float,
    largest_step: float = 1.0,
    name: str,
) -> None:
    """Change parameters, each group at its rate, which grows for `warm_up` of the steps and then falls to nothing."""
    parameters = [{"params": list(each), "lr": rate} for each, rate in groups]
    optimiser = torch.optim.AdamW(parameters, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    warm, steps = max(1, int(warm_up * len(batches))), len(batches)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: min(1, (step + 1) / warm) * (1 - step / steps))
    for step, batch in enumerate(batches):
        loss = loss_of(batch)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters[0]["params"], largest_step)
        optimiser.step()
        schedule.step()
        if step % 50 == 0:
            sys.stderr.write(f"{name}: step {step} of {steps}, loss {loss.item():.3f}\n")
