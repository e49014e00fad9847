import numpy as np
import pytest

from services.inference.e5.encoder import DEPTHS, Encoder
from services.inference.e5.tokens import BASIS, DIMENSIONS, MOST_TOKENS, Basis


@pytest.fixture(scope="module")
def encoder():
    return Encoder()


@pytest.fixture(scope="module")
def basis():
    return Basis()


def directions(tokens, depth):
    rows = tokens.values[:, DEPTHS.index(depth)].astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def standing_for(basis, encoder, text, other, depth):
    """For each token of one text, the number of the token of the other that is nearest."""
    one, two = (basis.tokens(encoder.encode(each, states=True)) for each in (text, other))
    return (directions(one, depth) @ directions(two, depth).T).argmax(axis=1).tolist()


def test_each_token_has_64_bytes_for_each_depth(encoder, basis):
    encoded = encoder.encode("How old is the oldest bridge in Rome?", states=True)
    tokens = basis.tokens(encoded)
    assert tokens.values.shape == (len(encoded.rarity), len(DEPTHS), DIMENSIONS)
    assert tokens.values.dtype == np.int8
    assert (np.abs(tokens.values).max(axis=2) == 127).all()


@pytest.mark.parametrize("depth", DEPTHS)
def test_the_same_words_in_another_order_find_each_other(encoder, basis, depth):
    first, second = "convert dollars euros", "euros dollars convert"

    found = standing_for(basis, encoder, first, second, depth)
    assert len(found) == len(encoder.encode(second).rarity)
    assert found == [len(found) - 1 - number for number in range(len(found))]


def test_likeness_of_tokens_survives_the_reduction(encoder, basis):
    one, two = (encoder.encode(f"What does it cost to {verb} to Oslo?", states=True) for verb in ("fly", "travel"))
    mean = np.concatenate([one.states[12], two.states[12]]).mean(axis=0)
    units = [
        rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (one.states[12] - mean, two.states[12] - mean)
    ]
    whole, reduced = units[0] @ units[1].T, directions(basis.tokens(one), 12) @ directions(basis.tokens(two), 12).T
    assert np.corrcoef(whole.ravel(), reduced.ravel())[0, 1] > 0.8


def test_long_texts_have_none_and_empty_ones_no_rows(encoder, basis):
    assert basis.tokens(encoder.encode("cat " * MOST_TOKENS, states=True)) is not None
    assert basis.tokens(encoder.encode("cat " * (MOST_TOKENS + 1), states=True)) is None
    assert basis.tokens(encoder.encode("", states=True)).values.shape == (0, len(DEPTHS), DIMENSIONS)


def test_a_basis_is_named_after_its_numbers(basis, tmp_path):
    with np.load(BASIS) as file:
        np.savez(tmp_path / "same.npz", means=file["means"], directions=file["directions"])
        np.savez(tmp_path / "other.npz", means=file["means"] + 1, directions=file["directions"])
    assert Basis(tmp_path / "same.npz").name == basis.name != Basis(tmp_path / "other.npz").name
