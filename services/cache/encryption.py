"""Encrypts entries, where an operator asks for it: who reads the stores' memory, disks or backups reads no answer."""

from __future__ import annotations

import hmac
import os
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE_BYTES = 12


class Locked(Exception):
    """Encrypted bytes were not made with this key, or not for this place."""


class Cipher:
    """AES-256-GCM under a key of each tenant's own, bound to the place an entry belongs to."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._cipher_of = lru_cache(maxsize=4096)(self._derived)

    def encrypt(self, tenant_id: str, place: str, message: bytes) -> bytes:
        """What only `decrypt` for the same tenant and place reads."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher_of(tenant_id).encrypt(nonce, message, place.encode())

    def decrypt(self, tenant_id: str, place: str, encrypted: bytes) -> bytes:
        """The message again.

        Raises:
            Locked: If it was encrypted with another key, or for another place or tenant.
        """
        nonce, body = encrypted[:NONCE_BYTES], encrypted[NONCE_BYTES:]
        try:
            return self._cipher_of(tenant_id).decrypt(nonce, body, place.encode())
        except (InvalidTag, ValueError) as error:
            raise Locked from error

    def _derived(self, tenant_id: str) -> AESGCM:
        return AESGCM(hmac.digest(self._secret, b"encryption:" + tenant_id.encode(), "sha256"))
