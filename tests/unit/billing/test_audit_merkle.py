"""The Merkle tree, against the hashes that Certificate Transparency's own tests publish."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.billing.audit.merkle import Tree

LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
"""github.com/google/certificate-transparency, cpp/merkletree: roots of the first 0 to 8 of the leaves."""


def recursive(leaves: list[bytes]) -> bytes:
    """The definition of RFC 9162, section 2.1.1, word for word."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    half = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + recursive(leaves[:half]) + recursive(leaves[half:])).digest()


def test_roots_are_those_of_certificate_transparency() -> None:
    tree = Tree()
    roots = [tree.root().hex()]
    for leaf in LEAVES:
        tree.append(bytes.fromhex(leaf))
        roots.append(tree.root().hex())
    assert roots == ROOTS


@given(st.lists(st.binary(max_size=40), max_size=70), st.integers(0, 70))
def test_a_tree_taken_up_again_grows_as_if_it_had_never_been_left(leaves: list[bytes], cut: int) -> None:
    first = Tree()
    first.extend(leaves[:cut])
    tree = Tree(first.size, first.peaks)
    tree.extend(leaves[cut:])
    assert tree.root() == recursive(leaves)


def test_peaks_that_do_not_fit_the_size_are_refused() -> None:
    with pytest.raises(ValueError, match="3 leaves has 2 peaks"):
        Tree(3, b"\0" * 32)
