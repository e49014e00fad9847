"""Trains the learned part of the cache's verifier and writes its weights and its calibration.

    python -m tests.eval.cache.training

Every pair of the parts "train" and "calibration" is scored by a forest that saw no pair of its topic, so the scores are
as good, and as bad, as on topics nobody wrote down; those are the calibration. The part "heldout" is not read here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesClassifier

from services.cache.verification.features import PairReader
from services.cache.verification.forest import Forest
from services.cache.verification.reader import Reader
from services.cache.verification.verifier import refusal
from tests.eval.cache.questions import ECHO, Pair, echoes, load
from wordvectors import WordVectors
from wordvectors.distillation.teacher import Teacher

WEIGHTS = Path("services/cache/verification/weights")
KEPT = Path("build/eval/teacher.npz")
TREES = 200
LEAST_IN_A_LEAF = 3
FOLDS = 8
"""So many forests judge the pairs, each those of topics that it has not seen."""
TRIED_AT_A_SPLIT = 0.4


class Measured:
    """Pairs with their features, similarities, and what the checks refuse outright."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.pairs = list(pairs)
        table, read = WordVectors.packaged(), lru_cache(maxsize=None)(Reader().read)
        reader = PairReader(table)
        texts = list(dict.fromkeys(text for pair in pairs for text in (pair.a, pair.b)))
        vectors = dict(zip(texts, _unit(Teacher(KEPT).embed(texts)), strict=True))
        sketches = dict(zip(texts, table.embed_all(texts), strict=True))
        self.accurate = np.array([float(vectors[p.a] @ vectors[p.b]) for p in self.pairs])
        self.outlines = np.array([float(sketches[p.a] @ sketches[p.b]) for p in self.pairs])
        self.vetoes = [refusal(read(p.a), read(p.b)) for p in self.pairs]
        rows = [
            reader.features(read(p.a), read(p.b), similarity=accurate, outline=outline)
            for p, accurate, outline in zip(self.pairs, self.accurate, self.outlines, strict=True)
        ]
        self.names = tuple(rows[0])
        self.features = np.array([[row[name] for name in self.names] for row in rows], dtype=np.float32)
        self.same = np.array([pair.same for pair in self.pairs])

    def groups(self, field: str) -> NDArray[np.str_]:
        """A field of every pair."""
        return np.array([str(getattr(pair, field)) for pair in self.pairs])


def fitted(measured: Measured, chosen: NDArray[np.bool_], trees: int = TREES) -> ExtraTreesClassifier:
    """A forest fitted to the chosen pairs."""
    forest = ExtraTreesClassifier(
        trees,
        min_samples_leaf=LEAST_IN_A_LEAF,
        max_features=TRIED_AT_A_SPLIT,
        random_state=0,
        n_jobs=2,
    )
    return forest.fit(measured.features[chosen], measured.same[chosen])


def unseen(measured: Measured, field: str) -> NDArray[np.float64]:
    """Certainty of every pair from a forest that saw none of its group; zero where a check refuses."""
    groups = measured.groups(field)
    certainty = np.zeros(len(measured.pairs))
    for fold in np.array_split(np.random.default_rng(0).permutation(np.unique(groups)), FOLDS):
        inside = np.isin(groups, fold)
        certainty[inside] = fitted(measured, ~inside).predict_proba(measured.features[inside])[:, 1]
    return np.where([veto is not None for veto in measured.vetoes], 0.0, certainty)


def write(forest: ExtraTreesClassifier, names: Sequence[str], into: Path) -> None:
    """Write the trees as arrays."""
    sizes = [len(tree.tree_.feature) for tree in forest.estimators_]
    roots = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int32)
    trees = [tree.tree_ for tree in forest.estimators_]
    np.savez_compressed(
        into,
        features=np.array(names),
        roots=roots,
        feature=np.concatenate([tree.feature for tree in trees]).astype(np.int16),
        limit=np.concatenate([tree.threshold for tree in trees]).astype(np.float32),
        below=np.concatenate([tree.children_left + at for tree, at in zip(trees, roots, strict=True)]).astype(np.int32),
        above=np.concatenate([tree.children_right + at for tree, at in zip(trees, roots, strict=True)]).astype(
            np.int32
        ),
        share=np.concatenate([tree.value[:, 0, 1] / tree.value[:, 0].sum(axis=1) for tree in trees]).astype(np.float32),
    )


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def main() -> None:
    """Train, check what was written, and write the calibration."""
    pairs = load("train", "calibration")
    measured = Measured([*pairs, *echoes(pairs)])
    certainty = unseen(measured, "topic")
    forest = fitted(measured, np.ones(len(measured.pairs), dtype=bool))
    WEIGHTS.mkdir(exist_ok=True)
    write(forest, measured.names, WEIGHTS / "forest.npz")
    again = Forest(WEIGHTS / "forest.npz").certainty(dict(zip(measured.names, measured.features[0], strict=True)))
    assert abs(again - forest.predict_proba(measured.features[:1])[0, 1]) < 1e-4
    scored = zip(certainty, measured.pairs, strict=True)
    judged = [[round(float(certain), 4), pair.same] for certain, pair in scored if pair.kind != ECHO]
    (WEIGHTS / "calibration.json").write_text(json.dumps(judged, separators=(",", ":")) + "\n")
    print(f"{len(measured.pairs)} pairs, {len(measured.names)} features, {len(judged)} judged for calibration")


if __name__ == "__main__":
    main()
