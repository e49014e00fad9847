"""Trains the learned part of the cache's verifier and writes its weights and its calibration.

    python -m tests.eval.cache.training

Every pair of the parts "train" and "calibration" is scored by a forest that saw no pair of its topic, so the scores are
as good, and as bad, as on topics nobody wrote down; those are the calibration. The part "heldout" is not read here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesClassifier

from services.cache.verification.alignment import TokenVectors, alignment
from services.cache.verification.courtesy import without_courtesy
from services.cache.verification.features import PairReader
from services.cache.verification.forest import Forest
from services.cache.verification.reader import Reader
from services.cache.verification.verifier import refusal
from services.inference.e5.encoder import Encoder
from services.inference.e5.tokens import Basis
from tests.eval.cache.questions import ECHO, Pair, echoes, load
from wordvectors import WordVectors

WEIGHTS = Path("services/cache/verification/weights")
TREES = 100
LEAST_IN_A_LEAF = 5
FOLDS = 8
"""So many forests judge the pairs, each those of topics that it has not seen."""
TRIED_AT_A_SPLIT = 0.4


@dataclass(frozen=True, slots=True)
class Seen:
    """A question as the embedding model sees it."""

    vector: NDArray[np.float32]
    tokens: TokenVectors


def embedded(texts: Iterable[str]) -> dict[str, Seen]:
    """Each text as the inference service would embed it, and as the cache would keep that; 80 a second."""
    encoder, basis = Encoder(), Basis()
    seen: dict[str, Seen] = {}
    for text in texts:
        encoded = encoder.encode(without_courtesy(text), states=True)
        made = basis.tokens(encoded)
        assert made is not None, text
        kept = TokenVectors.outermost(basis.name, made.values, made.rarity).packed
        seen[text] = Seen(encoded.vector, TokenVectors.unpacked(kept))
    return seen


class Measured:
    """Pairs with their features, similarities, and what the checks refuse outright."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.pairs = list(pairs)
        table, read = WordVectors.packaged(), lru_cache(maxsize=None)(Reader().read)
        reader = PairReader(table)
        texts = list(dict.fromkeys(text for pair in pairs for text in (pair.a, pair.b)))
        seen = embedded(texts)
        sketches = dict(zip(texts, table.embed_all([*map(without_courtesy, texts)]), strict=True))
        self.accurate = np.array([float(seen[p.a].vector @ seen[p.b].vector) for p in self.pairs])
        self.outlines = np.array([float(sketches[p.a] @ sketches[p.b]) for p in self.pairs])
        self.vetoes = [refusal(read(p.a), read(p.b)) for p in self.pairs]
        rows = [
            {
                **reader.features(read(p.a), read(p.b), similarity=accurate, outline=outline),
                **alignment(seen[p.a].tokens, seen[p.b].tokens),
            }
            for p, accurate, outline in zip(self.pairs, self.accurate, self.outlines, strict=True)
        ]
        self.names = tuple(rows[0])
        self.features = np.array([[row[name] for name in self.names] for row in rows], dtype=np.float32)
        self.same = np.array([pair.same for pair in self.pairs])

    def rows(self, chosen: slice = slice(None)) -> Iterator[dict[str, float]]:
        """Features of pairs by name."""
        return (dict(zip(self.names, row, strict=True)) for row in self.features[chosen].tolist())

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
    """Write the trees as arrays, in the order in which they are walked: by levels, leaves leading to themselves."""
    trees = [tree.tree_ for tree in forest.estimators_]
    roots = np.cumsum([0, *(tree.node_count for tree in trees[:-1])])
    left, right = (
        np.concatenate([np.where(side < 0, side, side + root) for side, root in zip(sides, roots, strict=True)])
        for sides in ([tree.children_left for tree in trees], [tree.children_right for tree in trees])
    )
    levels = [roots]
    while len(inner := levels[-1][left[levels[-1]] >= 0]):
        levels.append(np.stack([left[inner], right[inner]], axis=1).ravel())
    order = np.concatenate(levels)
    place = np.argsort(order)
    leaf = left[order] < 0
    joined = {name: np.concatenate([getattr(tree, name) for tree in trees])[order] for name in ("feature", "threshold")}
    shares = np.concatenate([tree.value[:, 0, 1] / tree.value[:, 0].sum(axis=1) for tree in trees])[order]
    np.savez_compressed(
        into,
        features=np.array(names),
        trees=len(trees),
        feature=np.where(leaf, 0, joined["feature"]).astype(np.int16),
        limit=np.where(leaf, np.float32(np.inf), _rounded_down(joined["threshold"])),
        below=np.where(leaf, np.arange(len(order)), place[left[order]]).astype(np.int32),
        share=np.where(leaf, shares, 0).astype(np.float32),
    )


def _rounded_down(limits: NDArray[np.float64]) -> NDArray[np.float32]:
    """In single precision, so that every feature stays on its side of the limit."""
    near = limits.astype(np.float32)
    return np.where(near > limits, np.nextafter(near, np.float32(-np.inf)), near)


def main() -> None:
    """Train, check what was written, and write the calibration."""
    pairs = load("train", "calibration")
    measured = Measured([*pairs, *echoes(pairs)])
    certainty = unseen(measured, "topic")
    forest = fitted(measured, np.ones(len(measured.pairs), dtype=bool))
    WEIGHTS.mkdir(exist_ok=True)
    write(forest, measured.names, WEIGHTS / "forest.npz")
    again = Forest(WEIGHTS / "forest.npz").certainties(list(measured.rows(slice(100))))
    assert np.allclose(again, forest.predict_proba(measured.features[:100])[:, 1], atol=1e-4)
    scored = zip(certainty, measured.pairs, strict=True)
    judged = [[round(float(certain), 4), pair.same] for certain, pair in scored if pair.kind != ECHO]
    (WEIGHTS / "calibration.json").write_text(json.dumps(judged, separators=(",", ":")) + "\n")
    print(f"{len(measured.pairs)} pairs, {len(measured.names)} features, {len(judged)} judged for calibration")


if __name__ == "__main__":
    main()
