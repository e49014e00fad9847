"""Trains the forest of the cache's verifier, weighs it against the cross-encoder, and writes weights and calibration.

    python -m tests.eval.cache.training [--keep-forest]

The forest learns from the part "train", as the cross-encoder did (`crossencoder.py`), and how much each counts from the
part "weighing". What both then make of the part "calibration" is the calibration: no topic of one part is in another,
so the scores are as good, and as bad, as on topics nobody wrote down. "heldout" is not read here.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import compress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.tree._tree import Tree

from services.cache.config import CacheConfig
from services.cache.errorbound import ErrorBound, Outcome
from services.cache.verification.alignment import TokenVectors, alignment
from services.cache.verification.courtesy import without_courtesy
from services.cache.verification.features import PairReader
from services.cache.verification.forest import Forest
from services.cache.verification.reader import Reader
from services.cache.verification.verifier import calibrated, refusal
from services.cache.verification.weighing import Weighing, spread
from services.inference.e5.crossencoder import CrossEncoder
from services.inference.e5.encoder import Encoder
from services.inference.e5.tokens import Basis
from tests.eval.cache.crossencoder import as_read, samples
from tests.eval.cache.questions import Pair, echoes, load
from wordvectors import WordVectors

WEIGHTS = Path("services/cache/verification/weights")
TREES = 100
LEAST_IN_A_LEAF = 8
NEVER_READ = 0.02
"""Pairs that the forest finds less likely are not worth a look by the cross-encoder."""
LOST = 0.01
"""Of the hits how many may be lost by not asking the cross-encoder."""
TRIED_AT_A_SPLIT = 0.4


@dataclass(frozen=True, slots=True)
class Seen:
    """A question as the embedding model sees it."""

    vector: NDArray[np.float32]
    tokens: TokenVectors


def embedded(texts: Iterable[str]) -> dict[str, Seen]:
    """Each text as the inference service would embed it, and as the cache would keep that; 80 a second and core."""
    encoder, basis = Encoder(), Basis()

    def seen(text: str) -> Seen:
        encoded = encoder.encode(without_courtesy(text), states=True)
        made = basis.tokens(encoded)
        assert made is not None, text
        kept = TokenVectors.outermost(basis.name, made.values, made.rarity).packed
        return Seen(encoded.vector, TokenVectors.unpacked(kept))

    texts = list(texts)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return dict(zip(texts, threads.map(seen, texts), strict=True))


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
        self.features = np.array([[row[name] for name in self.names] for row in rows], dtype=np.float16)
        self.same = np.array([pair.same for pair in self.pairs])

    def rows(self, chosen: slice = slice(None)) -> Iterator[dict[str, float]]:
        """Features of pairs by name."""
        return (dict(zip(self.names, row, strict=True)) for row in self.features[chosen].tolist())

    def groups(self, field: str) -> NDArray[np.str_]:
        """A field of every pair."""
        return np.array([str(getattr(pair, field)) for pair in self.pairs])


def fitted(measured: Measured) -> ExtraTreesClassifier:
    """A forest fitted to pairs."""
    forest = ExtraTreesClassifier(
        TREES,
        min_samples_leaf=LEAST_IN_A_LEAF,
        max_features=TRIED_AT_A_SPLIT,
        random_state=0,
        n_jobs=2,
    )
    return forest.fit(measured.features, measured.same)


@dataclass(frozen=True)
class Judged:
    """What forest and cross-encoder make of pairs."""

    measured: Measured
    estimates: NDArray[np.float64]
    log_odds: NDArray[np.float64]
    """Of pairs that are never read nothing is known."""
    read: NDArray[np.bool_]

    @classmethod
    def of(cls, measured: Measured, forest: Forest) -> Judged:
        """Judge the pairs; 80 a second."""
        estimates = np.array(forest.estimates(list(measured.rows())))
        allowed = np.array([veto is None for veto in measured.vetoes])
        read = allowed & (estimates >= NEVER_READ)
        crossencoder = CrossEncoder()
        log_odds = np.full(len(estimates), -np.inf)
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            texts = [as_read(pair) for pair in compress(measured.pairs, read)]
            log_odds[read] = list(threads.map(crossencoder.log_odds, *zip(*texts, strict=True)))
        return cls(measured, estimates, log_odds, read)

    def certainties(self, weighing: Weighing) -> NDArray[np.float64]:
        """How sure the verifier is of each pair; not at all where a check refuses."""
        both = zip(self.estimates.tolist(), self.log_odds.tolist(), strict=True)
        certain = [weighing.certainty(estimate, log_odds) for estimate, log_odds in both]
        return np.where(self.read, certain, 0.0)

    def weighing(self, asked_from: float = NEVER_READ) -> Weighing:
        """Weights fitted to the pairs that are read."""
        spreads = np.array([spread(estimate) for estimate in self.estimates[self.read].tolist()])
        same = self.measured.same[self.read]
        both = LogisticRegression(C=100).fit(np.stack([spreads, self.log_odds[self.read]], axis=1), same)
        of_forest, of_scorer = both.coef_[0].tolist()
        return Weighing(
            scorer=CrossEncoder().name,
            asked_from=asked_from,
            of_forest=of_forest,
            of_scorer=of_scorer,
            bias=float(both.intercept_[0]),
            alone_from=1.0,
        )


def write(forest: ExtraTreesClassifier, names: Sequence[str], into: Path) -> None:
    """Write the trees one after another as arrays, in the order in which they are walked."""
    walked = [_walked(each.tree_, nowhere=len(names)) for each in forest.estimators_]
    features, limits, belows = zip(*walked, strict=True)
    np.savez_compressed(
        into,
        features=np.array(names),
        roots=np.cumsum([0, *map(len, belows[:-1])]).astype(np.int32),
        feature=np.concatenate(features),
        limit=np.concatenate(limits),
        below=np.concatenate(belows),
    )


def _walked(tree: Tree, nowhere: int) -> tuple[NDArray[np.uint8], NDArray[np.float16], NDArray[np.uint16]]:
    """Which feature each node asks for, its limit and where those below stand; `nowhere` is what a leaf asks for."""
    left, right = tree.children_left, tree.children_right
    levels = [np.array([0])]
    while len(inner := levels[-1][left[levels[-1]] >= 0]):
        levels.append(np.stack([left[inner], right[inner]], axis=1).ravel())
    order = np.concatenate(levels)
    leaf, place = left[order] < 0, np.argsort(order)
    below = np.where(leaf, np.arange(len(order)), place[left[order]])
    assert nowhere <= np.iinfo(np.uint8).max, nowhere
    assert below.max() <= np.iinfo(np.uint16).max, len(order)
    shares = tree.value[order, 0, 1] / tree.value[order, 0].sum(axis=1)
    limits = np.where(leaf, shares.astype(np.float16), _rounded_down(tree.threshold[order]))
    return np.where(leaf, nowhere, tree.feature[order]).astype(np.uint8), limits, below.astype(np.uint16)


def _rounded_down(limits: NDArray[np.float64]) -> NDArray[np.float16]:
    """In half precision, so that every feature, which is read in that too, stays on its side of the limit."""
    near = limits.astype(np.float16)
    return np.where(near > limits, np.nextafter(near, np.float16(-np.inf)), near)


def main() -> None:
    """Train, check what was written, and write the calibration."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--keep-forest", action="store_true", help="only weigh and calibrate, for a new cross-encoder")
    forest = Forest.packaged() if parser.parse_args().keep_forest else trained_forest()
    weighed, judged = (Judged.of(Measured(load(part)), forest) for part in ("weighing", "calibration"))
    calibrate(weighed.weighing(), judged)


def trained_forest() -> Forest:
    """The forest, trained, written, and read again as the service reads it."""
    pairs = next(samples(load("train")))
    measured = Measured([*pairs, *echoes(pairs)])
    WEIGHTS.mkdir(exist_ok=True)
    trained = fitted(measured)
    write(trained, measured.names, WEIGHTS / "forest.npz")
    forest = Forest(WEIGHTS / "forest.npz")
    again = forest.estimates(list(measured.rows(slice(100))))
    assert np.allclose(again, trained.predict_proba(measured.features[:100])[:, 1], atol=1e-3)
    return forest


def calibrate(weighing: Weighing, judged: Judged) -> None:
    """Write how much forest and cross-encoder count, and what they say of pairs that they had not seen."""
    same = judged.measured.same
    certainty = judged.certainties(weighing)
    served = certainty >= threshold(certainty, same)
    weighing = replace(weighing, asked_from=float(np.quantile(judged.estimates[same & served], LOST)))
    certainty = judged.certainties(weighing)
    apart = design_effect(served & ~same, judged.measured.groups("topic"))
    rows = [[round(certain, 4), right] for certain, right in zip(certainty.tolist(), same.tolist(), strict=True)]
    calibration = {"design_effect": round(apart, 3), "outcomes": rows}
    (WEIGHTS / "calibration.json").write_text(json.dumps(calibration, separators=(",", ":")) + "\n")
    hits = (certainty >= calibrated(target=CacheConfig().error_target).state("").threshold)[same].mean()
    by_forest = np.where(judged.read, judged.estimates, 0)[same]
    weighing = replace(weighing, alone_from=float(np.quantile(by_forest, 1 - hits)))
    (WEIGHTS / "weighing.json").write_text(weighing.written)
    print(f"{len(rows)} pairs judged, {hits:.1%} of those that ask the same served, {weighing}")


def threshold(certainty: NDArray[np.float64], same: NDArray[np.bool_]) -> float:
    """The threshold for the default target, were all pairs independent."""
    outcomes = [Outcome(certain, right) for certain, right in zip(certainty.tolist(), same.tolist(), strict=True)]
    return ErrorBound(outcomes, target=CacheConfig().error_target).state("").threshold


def design_effect(wrong: NDArray[np.bool_], topics: NDArray[np.str_]) -> float:
    """How many times the variance of the rate of wrong hits is what it were in independent pairs.

    Pairs of a topic err together. The variance is that of a ratio of sums over topics, linearised (W. G. Cochran,
    Sampling Techniques, 3rd ed., 9A).
    """
    _, place = np.unique(topics, return_inverse=True)
    rate, pairs, failed = wrong.mean(), np.bincount(place), np.bincount(place, wrong)
    among = len(pairs) / (len(pairs) - 1) * ((failed - rate * pairs) ** 2).sum() / len(wrong)
    return max(1.0, float(among / (rate * (1 - rate))))


if __name__ == "__main__":
    main()
