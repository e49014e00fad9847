"""The Merkle tree of RFC 9162, section 2.1.1, grown leaf by leaf in logarithmic memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

HASH_BYTES = 32


class Tree:
    """Leaves are only ever added. Holds the roots of the full subtrees, the largest first: one per bit of `size`."""

    def __init__(self, size: int = 0, peaks: bytes = b"") -> None:
        if len(peaks) != size.bit_count() * HASH_BYTES:
            raise ValueError(f"a tree of {size} leaves has {size.bit_count()} peaks")
        self.size = size
        self._peaks = [peaks[start : start + HASH_BYTES] for start in range(0, len(peaks), HASH_BYTES)]

    @property
    def peaks(self) -> bytes:
        """What to go on from another time."""
        return b"".join(self._peaks)

    def append(self, leaf: bytes) -> None:
        """Add a leaf."""
        node = hashlib.sha256(b"\0" + leaf).digest()
        for _ in range((~self.size & self.size + 1).bit_length() - 1):
            node = _parent(self._peaks.pop(), node)
        self._peaks.append(node)
        self.size += 1

    def extend(self, leaves: Iterable[bytes]) -> None:
        """Add leaves."""
        for leaf in leaves:
            self.append(leaf)

    def root(self) -> bytes:
        """The hash of everything in it."""
        if not self._peaks:
            return hashlib.sha256().digest()
        root = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            root = _parent(peak, root)
        return root


def _parent(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()
