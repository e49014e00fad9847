"""Envelope encryption: contents with a key of the tenant's own, that key with one from outside the database.

AES-256-GCM throughout, a random nonce before each ciphertext. What a ciphertext belongs to is authenticated with it: it
cannot be passed off as another tenant's or another request's.
"""

from __future__ import annotations

import secrets
from base64 import b64decode

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
NONCE_BYTES = 12


class ContentsUnreadable(Exception):
    """The key is another, or somebody changed the ciphertext."""


class MasterKey:
    """The key that wraps tenants' keys; it is never in the database."""

    def __init__(self, encoded: str) -> None:
        try:
            key = b64decode(encoded, validate=True)
        except ValueError:
            key = b""
        if len(key) != KEY_BYTES:
            raise ValueError(f"must be {KEY_BYTES} bytes in base64: openssl rand -base64 {KEY_BYTES}")
        self._cipher = AESGCM(key)

    def new_key(self, tenant_id: str) -> bytes:
        """A new key of a tenant, wrapped."""
        return _sealed(self._cipher, secrets.token_bytes(KEY_BYTES), tenant_id)

    def unwrapped(self, wrapped: bytes, tenant_id: str) -> TenantKey:
        """A tenant's key, ready to use.

        Raises:
            ContentsUnreadable: If it was wrapped by another key, or for another tenant.
        """
        return TenantKey(_opened(self._cipher, wrapped, tenant_id))


class TenantKey:
    """Encrypts one tenant's contents."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, contents: bytes, request_id: str) -> bytes:
        """Encrypt what belongs to a request."""
        return _sealed(self._cipher, contents, request_id)

    def open(self, sealed: bytes, request_id: str) -> bytes:
        """Decrypt what belongs to a request.

        Raises:
            ContentsUnreadable: If it was changed, or belongs to another request or key.
        """
        return _opened(self._cipher, sealed, request_id)


def _sealed(cipher: AESGCM, plain: bytes, belongs_to: str) -> bytes:
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + cipher.encrypt(nonce, plain, belongs_to.encode())


def _opened(cipher: AESGCM, sealed: bytes, belongs_to: str) -> bytes:
    try:
        return cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], belongs_to.encode())
    except (InvalidTag, ValueError) as error:
        raise ContentsUnreadable("the key does not fit, or the ciphertext was changed") from error
