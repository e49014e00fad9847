"""Trains the cross-encoder: with an adapter the lower layers of the embedding model read two questions at once.

    python -m tests.eval.cache.crossencoder

It learns from the part "train" alone.
"""

from __future__ import annotations

import os
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from services.cache.verification.courtesy import without_courtesy
from services.cache.verification.reader import Reader
from services.cache.verification.verifier import refusal
from services.inference.e5.crossencoder import LAYERS, save
from tests.eval.cache.questions import Pair, load
from tests.eval.finetuning import Trainable, batched, optimise

FIRST_ADAPTED, RANK = 3, 16
"""The layers below do not change: what they make of a pair is computed once."""
EPOCHS, BATCH_TOKENS = 3, 1024
RATE, HEAD_RATE, WARM_UP = 1e-3, 1e-3, 0.06
DROPPED, SMOOTHED = 0.1, 0.03
"""Of the numbers of a pair how many the head does without; how sure of the truth it is not to be."""
SAME, DIFFERENT = 3, 6
"""Most pairs of each kind that a cluster gives: many clusters teach more than many pairs of one."""
OF_SAME = 1.5
"""What a pair that asks the same counts beside one that does not."""
SEED = 1


def chosen(pairs: Iterable[Pair]) -> Iterator[Pair]:
    """Some pairs of each cluster, of those that no check refuses."""
    read, chance = Reader().read, random.Random(SEED)
    clusters: defaultdict[tuple[str, str, int], list[Pair]] = defaultdict(list)
    for pair in pairs:
        clusters[pair.lang, pair.topic, pair.cluster].append(pair)
    for cluster in clusters.values():
        left = [pair for pair in cluster if refusal(read(pair.a), read(pair.b)) is None]
        for most, same in ((SAME, True), (DIFFERENT, False)):
            kind = [pair for pair in left if pair.same == same]
            yield from chance.sample(kind, min(most, len(kind)))


def as_read(pair: Pair) -> tuple[str, str]:
    """A pair as the model reads it."""
    return without_courtesy(pair.a), without_courtesy(pair.b)


class Head(nn.Module):
    """Says from the tokens of a pair how surely both ask the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.normalised, self.dropped, self.weighed = (
            nn.LayerNorm(3 * width),
            nn.Dropout(DROPPED),
            nn.Linear(3 * width, 1),
        )
        for parameter in self.weighed.parameters():
            nn.init.zeros_(parameter)

    def forward(self, states: Tensor, mask: Tensor, starts: Tensor) -> Tensor:
        """Log-odds for each pair, whose second text starts at `starts`."""
        places = torch.arange(states.shape[1])
        sides = [(mask & (places < starts[:, None])), (mask & (places >= starts[:, None]))]
        first, second = ((states * side[..., None]).sum(1) / side.sum(1, keepdim=True) for side in sides)
        seen = torch.cat([states[:, 0], (first + second) / 2, (first - second).abs()], dim=1)
        log_odds: Tensor = self.weighed(self.dropped(self.normalised(seen)))[:, 0]
        return log_odds

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """What was trained, by name."""
        return {name: parameter.detach().numpy().ravel() for name, parameter in self.named_parameters()}


class Training:
    """One training, the same each time on one machine."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        torch.set_num_threads(os.cpu_count() or 1)
        torch.manual_seed(SEED)
        chance = np.random.default_rng(SEED)
        self._model = Trainable(rank=RANK, first_adapted=FIRST_ADAPTED, layers=LAYERS)
        self._head = Head(self._model.width)
        texts = [as_read(pair)[:: chance.choice((1, -1))] for pair in pairs]
        self._below = self._model.fixed_all([self._model.tokens(*text) for text in texts])
        self._starts = torch.tensor([len(self._model.tokens(first)) for first, _ in texts])
        self._same = torch.tensor([float(pair.same) for pair in pairs])
        lengths = [len(each) for each in self._below]
        epochs = (batched(lengths, BATCH_TOKENS, chance) for _ in range(EPOCHS))
        self._batches = [batches[place] for batches in epochs for place in chance.permutation(len(batches))]

    def train(self) -> None:
        """Train, and write adapter and head for the inference service."""
        groups = [(self._model.parameters(), RATE), (self._head.parameters(), HEAD_RATE)]
        optimise(groups, self._batches, self._loss, warm_up=WARM_UP, name="cross-encoder")
        save(self._model.adapter(), self._head.weights())

    def _loss(self, batch: Sequence[int]) -> Tensor:
        states, mask = self._model.states([self._below[place].float() for place in batch])
        same = self._same[batch]
        wanted, importance = same * (1 - 2 * SMOOTHED) + SMOOTHED, 1 + same * (OF_SAME - 1)
        log_odds = self._head(states, mask, self._starts[batch])
        return functional.binary_cross_entropy_with_logits(log_odds, wanted, importance)


if __name__ == "__main__":
    Training(list(chosen(load("train")))).train()
