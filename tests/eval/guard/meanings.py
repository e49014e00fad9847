"""Fits the embedding layer: adapter and head, and how much they count beside the classifier."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from services.guard.meaning import MeaningHead, logit
from services.guard.second_look import LONGEST_WINDOW
from services.inference.e5.adapters import FOLDER, Adapter, save_adapter
from tests.eval.guard.adapting import FOLDS, Lesson, Numbers, learn_all
from tests.eval.guard.reader import Scored, folds
from tests.eval.guard.sets import Sample

ADAPTER = "prompt-injection"
"""What the adapter's name begins with."""

Truths = NDArray[np.bool_]


class Meanings:
    """Prompts with the windows that the classifier finds likeliest, and what adapted models think of these."""

    def __init__(self, known: Sequence[Sample], scored: Sequence[Scored]) -> None:
        """`scored` is what heads that had not seen them thought of the words."""
        self._windows = np.array([each.window[:LONGEST_WINDOW] for each in scored], object)
        self._attacks = np.array([each.is_attack for each in known])
        self._importance = _importance(known, self._attacks)
        pulls = self._learnt(np.array(folds(known, FOLDS)))
        rows = np.stack([pulls, [logit(each.score) for each in scored]], axis=1)
        self._weighing: Any = LogisticRegression().fit(rows, self._attacks, self._importance)
        self.unseen: Numbers = self._weighing.predict_proba(rows)[:, 1]
        """How likely each is an attack, words and meaning together, by models that had not seen it."""

    def _learnt(self, fold_of: NDArray[np.int64]) -> Numbers:
        """What each window's meaning says by a model that had not seen it; keeps the model that saw all."""
        everything = np.full(len(fold_of), fill_value=True)
        lessons = [self._lesson(everything), *(self._lesson(fold_of != fold) for fold in range(FOLDS))]
        (self._tuned, _), *unseen = learn_all(lessons)
        pulls = np.zeros(len(fold_of))
        for fold, (_, judged) in enumerate(unseen):
            pulls[fold_of == fold] = judged
        return pulls

    def _lesson(self, shown: Truths) -> Lesson:
        windows, judged = (self._windows[which].tolist() for which in (shown, ~shown))
        return Lesson(windows, self._attacks[shown], self._importance[shown], judged)

    def head(self) -> MeaningHead:
        """Weights from all of them, for the adapter that `save_adapter` writes; thresholds are set later."""
        (of_meaning, of_words), bias = self._weighing.coef_[0], self._weighing.intercept_[0]
        weighing = {"of_meaning": float(of_meaning), "of_words": float(of_words), "bias": float(bias)}
        return MeaningHead(self._name, self._tuned.direction, self._tuned.rest, **weighing)

    def save_adapter(self, folder: Path = FOLDER) -> None:
        """Write the adapter in place of the one before."""
        for before in folder.glob(f"{ADAPTER}-*.npz"):
            before.unlink()
        save_adapter(self._tuned.adapter, folder / f"{self._name}.npz")

    @property
    def _name(self) -> str:
        return f"{ADAPTER}-{_fingerprint(self._tuned.adapter)}"


def _fingerprint(adapter: Adapter) -> str:
    digest = hashlib.sha256()
    for name, matrix in sorted(adapter.items()):
        digest.update(name.encode() + matrix.astype(np.float16).tobytes())
    return digest.hexdigest()[:8]


def _importance(known: Sequence[Sample], attacks: Truths) -> Numbers:
    """How much each counts: a situation told often counts less each time; both kinds count the same; 1 on average."""
    told = Counter(each.situation for each in known)
    shares = np.array([1 / np.sqrt(told[each.situation]) for each in known])
    each_kind = np.where(attacks, 0.5 / shares[attacks].sum(), 0.5 / shares[~attacks].sum())
    importance: Numbers = shares * each_kind * len(known)
    return importance
