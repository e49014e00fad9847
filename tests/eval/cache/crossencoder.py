"""Trains the cross-encoder: with an adapter the lower layers of the embedding model read two questions at once.

    python -m tests.eval.cache.crossencoder [--epochs 7] [--continue] [--new TOPICS ...] [--seed 1]

It learns from the part "train" alone. A training that continues starts from the weights of the one before it and draws
other pairs; where topics are new since then it sees all of them and half of the others, lest it forget. With each pass
its rates fall to nothing, and what it writes is the mean of the weights it began with and of those after each pass:
these err in different places, and their mean less than any of them (stochastic weight averaging with a cyclic rate,
Izmailov et al. 2018, arXiv 1803.05407).
"""

from __future__ import annotations

import argparse
import os
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from services.cache.verification.courtesy import without_courtesy
from services.inference.e5.crossencoder import LAYERS, WEIGHTS, as_one, load, save
from tests.eval.cache.questions import Pair
from tests.eval.cache.questions import load as load_pairs
from tests.eval.finetuning import Trainable, batched, optimise

FIRST_ADAPTED, RANK = 3, 64
"""The layers below do not change: what they make of a pair is computed once."""
EPOCHS, BATCH_TOKENS = 7, 1024
RATES, WARM_UP = (7e-4, 1e-3), 0.06
"""Of adapter and head."""
RATES_ON = (2.5e-4, 4e-4)
"""The same of a training that continues: at the others the first pass undoes more than it learns (ADR 14)."""
DROPPED, SMOOTHED = 0.1, 0.03
"""Of the numbers of a pair how many the head does without; how sure of the truth it is not to be."""
OF_KINDS = 0.3
"""What it counts to tell in what two questions differ, beside telling whether they do. Only the training asks that."""
SAME, DIFFERENT = 3, 6
"""Most pairs of each kind that a cluster gives: many clusters teach more than many pairs of one."""
OF_KNOWN = 0.5
"""How many of the clusters that it knows a pass sees again, where there are new ones."""
OF_SAME = 1.5
"""What a pair that asks the same counts beside one that does not."""


def samples(pairs: Iterable[Pair], seed: int = 1, new: Sequence[str] = ("",)) -> Iterator[list[Pair]]:
    """Some pairs of each cluster, others each time; of clusters whose topic begins as none of `new`, of half only."""
    chance = random.Random(seed)
    kinds: defaultdict[tuple[str, str, int, bool], list[Pair]] = defaultdict(list)
    for pair in pairs:
        kinds[pair.lang, pair.topic, pair.cluster, pair.same].append(pair)
    is_new = tuple(new)
    while True:
        seen = [kind for of, kind in kinds.items() if of[1].startswith(is_new) or chance.random() < OF_KNOWN]
        drawn = (chance.sample(kind, min(SAME if kind[0].same else DIFFERENT, len(kind))) for kind in seen)
        yield list(chain.from_iterable(drawn))


Weights = Mapping[str, NDArray[np.float32]]


def mean(kept: Sequence[Weights]) -> dict[str, NDArray[np.float32]]:
    """The mean of the weights of each name."""
    return {name: np.mean([weights[name] for weights in kept], axis=0, dtype=np.float32) for name in kept[0]}


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
        return self.log_odds(self.seen(states, mask, starts))

    def log_odds(self, seen: Tensor) -> Tensor:
        """Log-odds for each pair, from what is seen of it."""
        log_odds: Tensor = self.weighed(seen)[:, 0]
        return log_odds

    def seen(self, states: Tensor, mask: Tensor, starts: Tensor) -> Tensor:
        """What the tokens of each pair come to."""
        places = torch.arange(states.shape[1])
        sides = [(mask & (places < starts[:, None])), (mask & (places >= starts[:, None]))]
        first, second = ((states * side[..., None]).sum(1) / side.sum(1, keepdim=True) for side in sides)
        parts = torch.cat([states[:, 0], (first + second) / 2, (first - second).abs()], dim=1)
        seen: Tensor = self.dropped(self.normalised(parts))
        return seen

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """What was trained, by name."""
        return {name: parameter.detach().numpy().flatten() for name, parameter in self.named_parameters()}

    def continue_from(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        """Train on from what `weights` returned in an earlier training."""
        for name, parameter in self.named_parameters():
            parameter.data = torch.from_numpy(weights[name]).view(parameter.shape)


class Training:
    """One training, the same each time on one machine; from the start, or on from the weights in the file `after`."""

    def __init__(self, epochs: Sequence[Sequence[Pair]], *, seed: int = 1, after: Path | None = None) -> None:
        torch.set_num_threads(os.cpu_count() or 1)
        torch.manual_seed(seed)
        chance = np.random.default_rng(seed)
        self._model = Trainable(rank=RANK, first_adapted=FIRST_ADAPTED, layers=LAYERS)
        self._head = Head(self._model.width)
        if after:
            adapter, head = load(after)
            self._model.continue_from(adapter)
            self._head.continue_from(head)
        pairs = list(dict.fromkeys(chain.from_iterable(epochs)))
        texts = [as_read(pair)[:: chance.choice((1, -1))] for pair in pairs]
        tokens, starts = zip(*(as_one(self._model.inputs, *text) for text in texts), strict=True)
        self._below, self._starts = self._model.fixed_all(tokens), torch.tensor(starts)
        self._same = torch.tensor([pair.same for pair in pairs])
        kinds, kind = np.unique([pair.kind for pair in pairs], return_inverse=True)
        self._kinds, self._kind = nn.Linear(self._head.normalised.weight.numel(), len(kinds)), torch.from_numpy(kind)
        nn.init.zeros_(self._kinds.weight)  # so that it teaches nothing before it has learned something
        place = {pair: place for place, pair in enumerate(pairs)}
        self._passes = [[*self._batched([place[each] for each in epoch], chance)] for epoch in epochs]
        self._goes_on = after is not None

    def train(self, into: Path = WEIGHTS) -> None:
        """Train, and write adapter and head for the inference service."""
        heads = [*self._head.parameters(), *self._kinds.parameters()]
        kept = [self._trained()] if self._goes_on else []
        rates = RATES_ON if self._goes_on else RATES
        for number, batches in enumerate(self._cycles(), 1):
            groups = zip((self._model.parameters(), heads), rates, strict=True)
            optimise(groups, batches, self._loss, warm_up=WARM_UP, name=f"cross-encoder, cycle {number}")
            kept.append(self._trained())
        adapters, heads_after = zip(*kept, strict=True)
        save(mean(adapters), mean(heads_after), into)

    def _cycles(self) -> list[list[list[int]]]:
        """The batches between which the rates begin anew: each pass, but all as one where it learns from the start."""
        return self._passes if self._goes_on else [[*chain.from_iterable(self._passes)]]

    def _trained(self) -> tuple[Weights, Weights]:
        return self._model.adapter(), self._head.weights()

    def _batched(self, places: Sequence[int], chance: np.random.Generator) -> Iterator[list[int]]:
        """Pairs of about the same length together, in no order."""
        batches = batched([len(self._below[place]) for place in places], BATCH_TOKENS, chance)
        return ([places[each] for each in batches[number]] for number in chance.permutation(len(batches)))

    def _loss(self, batch: Sequence[int]) -> Tensor:
        states, mask = self._model.states([self._below[place].float() for place in batch])
        seen, same = self._head.seen(states, mask, self._starts[batch]), self._same[batch]
        wanted, importance = same * (1 - 2 * SMOOTHED) + SMOOTHED, 1 + same * (OF_SAME - 1)
        surely = functional.binary_cross_entropy_with_logits(self._head.log_odds(seen), wanted, importance)
        return surely + OF_KINDS * functional.cross_entropy(self._kinds(seen), self._kind[batch])


def main() -> None:
    """Train from the start, or on from the weights that there are."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="how often it sees every cluster; %(default)s")
    parser.add_argument("--continue", dest="on", action="store_true", help="start from the weights that there are")
    parser.add_argument("--new", nargs="+", default=[], metavar="TOPICS", help="how topics begin that are new to it")
    parser.add_argument("--seed", type=int, default=1, help="another draws other pairs of each cluster; %(default)s")
    given = parser.parse_args()
    if given.new and not given.on:
        parser.error("--new says what is new to a training that goes on: give --continue too")
    epochs = islice(samples(load_pairs("train"), given.seed, given.new or [""]), given.epochs)
    Training(list(epochs), seed=given.seed, after=WEIGHTS if given.on else None).train()


if __name__ == "__main__":
    main()
