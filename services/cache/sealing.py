"""Seals entries, so that what was changed, or moved from one place to another, is not taken for an answer."""

from __future__ import annotations

import hmac
import os
import secrets
from functools import lru_cache
from pathlib import Path

SEAL_BYTES = 16
KEY_BYTES = 32
KEY_FILE = "sealing-key"
"""Beside the embedded store, when no key is configured."""


class Seals:
    """HMAC-SHA-256, cut to 16 bytes, under a key of each tenant's own, over an entry and the place it belongs to."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._key_of = lru_cache(maxsize=4096)(self._derived)
        self.name = hmac.digest(secret, b"name", "sha256")[:4].hex()
        """Tells the key from others, and nothing else of it."""

    def seal(self, tenant_id: str, place: str, entry: bytes) -> bytes:
        """The seal of an entry at a place, such as its key."""
        key = self._key_of(tenant_id)
        return hmac.digest(key, f"{len(place)}:{place}".encode() + entry, "sha256")[:SEAL_BYTES]

    def holds(self, seal: bytes, tenant_id: str, place: str, entry: bytes) -> bool:
        """Whether the entry is as it was sealed, where it was sealed."""
        return hmac.compare_digest(seal, self.seal(tenant_id, place, entry))

    def pseudonym(self, tenant_id: str, name: str) -> str:
        """What stands for a person's name in entries: nobody without the key can tell whose it is. Empty for none."""
        if not name:
            return ""
        return hmac.digest(self._key_of(tenant_id), b"subject:" + name.encode(), "sha256")[:SEAL_BYTES].hex()

    def _derived(self, tenant_id: str) -> bytes:
        return hmac.digest(self._secret, b"tenant:" + tenant_id.encode(), "sha256")


def secret_in(folder: Path) -> bytes:
    """The secret kept in a folder, made when missing; of processes that make it at once all take the same."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / KEY_FILE
    fresh = folder / f"{KEY_FILE}.{os.getpid()}"
    fresh.touch(mode=0o600)
    fresh.write_bytes(secrets.token_bytes(KEY_BYTES))
    try:
        os.link(fresh, path)
    except FileExistsError:
        pass
    finally:
        fresh.unlink()
    return path.read_bytes()
