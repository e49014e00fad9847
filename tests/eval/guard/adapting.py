"""Trains the embedding layer's adapter: the model learns what attacks are, in place of what texts are about.

A linear head over the model's vector is trained with it. Heads and adapters that judge prompts for the thresholds were
shown nothing of their situations. What was trained once on the same windows is kept.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from services.inference.e5.adapters import Adapter
from tests.eval.finetuning import Trainable, batched, optimise

KEPT = Path("build/train-guard")
FOLDS = 3
"""So many adapters judge the known prompts, each those of situations that it has not seen."""
FIRST_ADAPTED, RANK = 6, 8
"""The upper half of the model changes: what is below is computed once for each window."""
EPOCHS, BATCH_TOKENS = 3, 512
RATE, HEAD_RATE, WARM_UP = 2.5e-3, 1e-2, 0.06
DROPPED, SMOOTHED = 0.1, 0.05
"""Of the vector's numbers how many the head does without; how sure of the truth it is not to be."""
SPREAD_OF = 400
"""Windows that say how the plain model's vectors are spread."""
LARGEST_STEP = 1.0
SEED = 1

Numbers = NDArray[np.float64]
States = NDArray[np.float16]
"""Of a window below the adapter, a row for each token."""


class Tuned(NamedTuple):
    """An adapter, and the head over its vectors: a text's pull towards attacks is `vector @ direction + rest`."""

    adapter: Adapter
    direction: NDArray[np.float32]
    rest: float


@dataclass(frozen=True)
class Lesson:
    """Windows to learn from."""

    texts: Sequence[str]
    attacks: NDArray[np.bool_]
    importance: Numbers
    judged: Sequence[str] = field(default=())
    """Windows that the outcome is to judge."""

    @property
    def windows(self) -> tuple[Sequence[str], Sequence[str]]:
        """Those to learn from, and those to judge."""
        return self.texts, self.judged

    @cached_property
    def kept(self) -> Path:
        """Where the outcome is kept: the same for the same windows and the same way to learn."""
        KEPT.mkdir(parents=True, exist_ok=True)
        way = (EPOCHS, BATCH_TOKENS, RATE, HEAD_RATE, WARM_UP, DROPPED, SMOOTHED, FIRST_ADAPTED, RANK, SEED, SPREAD_OF)
        said = repr((way, list(self.texts), self.attacks.tolist(), self.importance.tolist(), list(self.judged)))
        return KEPT / f"tuned-{hashlib.sha256(said.encode()).hexdigest()[:8]}.npz"


def learn_all(lessons: Sequence[Lesson]) -> list[tuple[Tuned, Numbers]]:
    """What each lesson teaches, and the pulls of the windows it judges; on all cores, one lesson on each."""
    fixed = fixed_states([text for each in lessons if not each.kept.exists() for text in chain(*each.windows)])
    states = [[[fixed[text] for text in texts if text in fixed] for texts in each.windows] for each in lessons]
    spawning = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(len(lessons), os.cpu_count() or 1), spawning) as processes:
        return list(processes.map(learn, lessons, states))


def learn(lesson: Lesson, states: Sequence[Sequence[States]]) -> tuple[Tuned, Numbers]:
    """Train on a lesson, unless that was done before; `states` are what its windows are below the adapter."""
    if not lesson.kept.exists():
        training = Training(lesson, [_tensor(each) for each in states[0]])
        tuned = training.tuned()
        pulls = training.pulls(tuned, [_tensor(each) for each in states[1]])
        np.savez(lesson.kept, **tuned.adapter, direction=tuned.direction, rest=np.array(tuned.rest), pulls=pulls)
    with np.load(lesson.kept, allow_pickle=False) as file:
        matrices = {name: file[name] for name in file.files}
    direction, rest, pulls = (matrices.pop(name) for name in ("direction", "rest", "pulls"))
    return Tuned(matrices, direction, float(rest)), pulls


def fixed_states(texts: Iterable[str]) -> dict[str, States]:
    """What each text is below the adapter."""
    model = Trainable(rank=0, first_adapted=FIRST_ADAPTED)
    return {text: model.fixed(model.tokens(text)).numpy().astype(np.float16) for text in dict.fromkeys(texts)}


def _tensor(states: States) -> Tensor:
    return torch.from_numpy(states.astype(np.float32))


class Training:
    """One training, the same each time on one machine."""

    def __init__(self, lesson: Lesson, windows: Sequence[Tensor]) -> None:
        torch.set_num_threads(1)
        torch.manual_seed(SEED)
        self._random = np.random.default_rng(SEED)
        self._lesson = lesson
        self._model = Trainable(rank=RANK, first_adapted=FIRST_ADAPTED)
        self._windows = windows
        self._head = nn.Linear(self._model.width, 1)
        for parameter in self._head.parameters():
            nn.init.zeros_(parameter)
        some = [windows[place] for place in self._random.permutation(len(windows))[:SPREAD_OF]]
        plain = torch.from_numpy(self._vectors(some))
        self._centre, self._spread = plain.mean(0), plain.std(0) * self._model.width**0.5 / 4

    def tuned(self) -> Tuned:
        """Train."""
        groups = [(self._model.parameters(), RATE), (self._head.parameters(), HEAD_RATE)]
        optimise(
            groups,
            list(self._epochs()),
            self._loss,
            warm_up=WARM_UP,
            largest_step=LARGEST_STEP,
            name=self._lesson.kept.stem,
        )
        with torch.no_grad():
            direction = self._head.weight[0] / self._spread
            rest = float(self._head.bias[0] - direction @ self._centre)
        return Tuned(self._model.adapter(), direction.numpy(), rest)

    def pulls(self, tuned: Tuned, windows: Sequence[Tensor]) -> Numbers:
        """What the outcome thinks of windows."""
        pulls: Numbers = self._vectors(windows).astype(np.float64) @ tuned.direction + tuned.rest
        return pulls

    def _epochs(self) -> Iterator[Sequence[int]]:
        for _ in range(EPOCHS):
            batches = self._batches(self._windows)
            yield from (batches[place] for place in self._random.permutation(len(batches)))

    def _batches(self, windows: Sequence[Tensor]) -> list[list[int]]:
        return batched([len(each) for each in windows], BATCH_TOKENS, self._random)

    def _loss(self, batch: Sequence[int]) -> Tensor:
        vectors = self._model([self._windows[place] for place in batch])
        seen = functional.dropout((vectors - self._centre) / self._spread, DROPPED)
        attacks = torch.from_numpy(self._lesson.attacks[batch].astype(np.float32))
        importance = torch.from_numpy(self._lesson.importance[batch].astype(np.float32))
        wanted = attacks * (1 - 2 * SMOOTHED) + SMOOTHED
        return functional.binary_cross_entropy_with_logits(self._head(seen)[:, 0], wanted, importance)

    @torch.no_grad()
    def _vectors(self, windows: Sequence[Tensor]) -> NDArray[np.float32]:
        vectors = np.zeros((len(windows), self._model.width), np.float32)
        for batch in self._batches(windows):
            vectors[batch] = self._model([windows[place] for place in batch]).numpy()
        return vectors
