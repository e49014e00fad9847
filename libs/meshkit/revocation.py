"""Keys that are no longer good although their tokens are: known in every room, within a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from llmmesh.tenant.v1 import tenant_pb2


class Revocations:
    """Since when, or from when on, keys are no longer good."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._since: dict[str, float] = {}

    def replace(self) -> None:
        """Forget everything: the whole comes next."""
        self._since = {}

    def take(self, revocations: Iterable[tenant_pb2.Revocation]) -> None:
        """Take in news."""
        for revocation in revocations:
            self._since[revocation.key_id] = revocation.revoke_time.ToNanoseconds() / 1e9

    def revoked(self, key_id: str) -> bool:
        """Whether a key is no longer good."""
        since = self._since.get(key_id)
        return since is not None and since <= self._clock()
