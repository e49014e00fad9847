"""Fits the embedding layer: a support vector machine over vectors, and how much it counts beside the classifier."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

from services.guard.meaning import STEEPNESS, MeaningHead, Vectors, centred, logit
from services.guard.second_look import LONGEST_WINDOW
from tests.eval.guard.reader import FOLDS, Scored, folds
from tests.eval.guard.sets import Sample
from wordvectors.distillation.teacher import Teacher

KEPT = Path("build/train-guard/vectors.npz")
"""Vectors already made: a text's never changes."""
SLACK = 3.0
"""What a text on the wrong side costs; chosen, as the steepness, by cross-validation."""

Truths = NDArray[np.bool_]
Numbers = NDArray[np.float64]


class Meanings:
    """Prompts with the vectors of the windows that the classifier finds likeliest."""

    def __init__(self, known: Sequence[Sample], scored: Sequence[Scored]) -> None:
        """`scored` is what heads that had not seen them thought of the words."""
        self._vectors = vectors_of([each.window[:LONGEST_WINDOW] for each in scored])
        self._words = np.array([logit(each.score) for each in scored])
        self._attacks = np.array([each.is_attack for each in known])
        self._importance = _importance(known, self._attacks)
        self._fold_of = np.array(folds(known))
        self._pulls = self._unseen_pulls()
        rows = np.stack([self._pulls, self._words], axis=1)
        self._weighing: Any = LogisticRegression().fit(rows, self._attacks, self._importance)
        self.unseen: Numbers = self._weighing.predict_proba(rows)[:, 1]
        """How likely each is an attack, words and meaning together, by machines that had not seen it."""

    def head(self) -> MeaningHead:
        """Weights from all of them; thresholds are set later."""
        (of_meaning, of_words), bias = self._weighing.coef_[0], self._weighing.intercept_[0]
        machine = self._machine(np.full(len(self._attacks), fill_value=True))
        return machine._replace(of_meaning=float(of_meaning), of_words=float(of_words), bias=float(bias))

    def _unseen_pulls(self) -> Numbers:
        pulls = np.zeros(len(self._attacks))
        for fold in range(FOLDS):
            shown = self._fold_of != fold
            machine = self._machine(shown)
            pulls[~shown] = machine.pull(self._vectors[~shown])
        return pulls

    def _machine(self, shown: Truths) -> MeaningHead:
        centre = self._vectors[shown].mean(axis=0)
        rows = centred(self._vectors[shown], centre)
        # Of vectors of length 1 the squared distance is 2 - 2 cos, so that half of the steepness is gamma.
        machine: Any = SVC(C=SLACK, gamma=STEEPNESS / 2)
        machine.fit(rows, self._attacks[shown], self._importance[shown])
        pulls = machine.dual_coef_[0].astype(np.float32)
        return MeaningHead(centre, rows[machine.support_], pulls, float(machine.intercept_[0]))


def vectors_of(texts: Sequence[str]) -> Vectors:
    """The embedding model's vectors, one a row."""
    return Teacher(KEPT).embed([text.replace("\0", " ") for text in texts])


def _importance(known: Sequence[Sample], attacks: Truths) -> Numbers:
    """How much each counts: a situation told often counts less each time; both kinds count the same; 1 on average."""
    told = Counter(each.situation for each in known)
    shares = np.array([1 / np.sqrt(told[each.situation]) for each in known])
    each_kind = np.where(attacks, 0.5 / shares[attacks].sum(), 0.5 / shares[~attacks].sum())
    importance: Numbers = shares * each_kind * len(known)
    return importance
