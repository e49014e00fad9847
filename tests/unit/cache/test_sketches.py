from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from services.cache.vectorstores.sketches import SketchIndex

PLACE = ("acme", "c1")
CHANCE = np.random.default_rng(5)


def random_sketches(count: int, dimensions: int = 128) -> np.ndarray:
    drawn = CHANCE.standard_normal((count, dimensions)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def test_the_nearest_of_thousands_are_found_as_by_full_comparison() -> None:
    index, sketches = SketchIndex(128), random_sketches(5000)
    for number, sketch in enumerate(sketches):
        index.put(str(number), PLACE, sketch, 2.0)
    for asked in range(0, 5000, 100):
        near = sketches[asked] + 0.6 * random_sketches(1)[0]
        found = index.near(PLACE, near, now=1.0, at_least=0.5, limit=3)
        cosines = sketches @ (near / np.linalg.norm(near))
        assert int(found[0][0]) == int(np.argmax(cosines)) == asked
        assert abs(found[0][1] - float(cosines.max())) < 0.01


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["put", "drop"]), st.integers(0, 2)), max_size=60))
def test_after_any_changes_exactly_what_was_put_and_not_dropped_is_found(changes: list[tuple[int, str, int]]) -> None:
    index, sketches = SketchIndex(16), random_sketches(10, 16)
    held: dict[str, tuple[str, str]] = {}
    for number, change, place in changes:
        entry_id, where = str(number), ("acme", str(place))
        if change == "put":
            index.put(entry_id, where, sketches[number], 2.0)
            held[entry_id] = where
        else:
            index.drop(entry_id)
            held.pop(entry_id, None)
    assert len(index) == len(held)
    for place in range(3):
        where = ("acme", str(place))
        found = index.near(where, sketches[0], now=1.0, at_least=-1.1, limit=99)
        assert {entry_id for entry_id, _ in found} == {entry_id for entry_id, at in held.items() if at == where}


def test_a_text_without_known_words_is_near_nothing() -> None:
    index = SketchIndex(128)
    index.put("1", PLACE, np.zeros(128, dtype=np.float32), 2.0)
    assert index.near(PLACE, random_sketches(1)[0], now=1.0, at_least=0.1, limit=3) == []
    assert index.near(PLACE, np.zeros(128, dtype=np.float32), now=1.0, at_least=0.1, limit=3) == []
