"""Envelope encryption: contents with a key of the tenant's own, that key with one from outside the database.

AES-256-GCM throughout, a random nonce before each ciphertext. What a ciphertext belongs to is authenticated with it: it
cannot be passed off as another tenant's or another request's.
"""

from __future__ import annotations

import secrets
from base64 import b64decode
from contextlib import suppress

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
NONCE_BYTES = 12


class ContentsUnreadable(Exception):
    """The key is another, or somebody changed the ciphertext."""


class MasterKey:
    """The key that wraps tenants' keys, and those it follows; none is ever in the database."""

    def __init__(self, encoded: str) -> None:
        """`encoded` is the key that wraps, and after commas the former ones, which only unwrap."""
        self._ciphers = [_cipher(each) for each in encoded.split(",")]

    def new_key(self, tenant_id: str) -> bytes:
        """A new key of a tenant, wrapped."""
        return _sealed(self._ciphers[0], secrets.token_bytes(KEY_BYTES), tenant_id)

    def unwrapped(self, wrapped: bytes, tenant_id: str) -> TenantKey:
        """A tenant's key, ready to use.

        Raises:
            ContentsUnreadable: If it was wrapped by another key, or for another tenant.
        """
        return TenantKey(self._opened(wrapped, tenant_id))

    def rewrapped(self, wrapped: bytes, tenant_id: str) -> bytes | None:
        """A tenant's key wrapped by the key that wraps now; None when it is already.

        Raises:
            ContentsUnreadable: As for `unwrapped`.
        """
        try:
            _opened(self._ciphers[0], wrapped, tenant_id)
        except ContentsUnreadable:
            return _sealed(self._ciphers[0], self._opened(wrapped, tenant_id), tenant_id)
        return None

    def _opened(self, wrapped: bytes, tenant_id: str) -> bytes:
        for cipher in self._ciphers[:-1]:
            with suppress(ContentsUnreadable):
                return _opened(cipher, wrapped, tenant_id)
        return _opened(self._ciphers[-1], wrapped, tenant_id)


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


def _cipher(encoded: str) -> AESGCM:
    try:
        key = b64decode(encoded.strip(), validate=True)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ValueError(f"must be {KEY_BYTES} bytes in base64: openssl rand -base64 {KEY_BYTES}")
    return AESGCM(key)


def _sealed(cipher: AESGCM, plain: bytes, belongs_to: str) -> bytes:
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + cipher.encrypt(nonce, plain, belongs_to.encode())


def _opened(cipher: AESGCM, sealed: bytes, belongs_to: str) -> bytes:
    try:
        return cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], belongs_to.encode())
    except (InvalidTag, ValueError) as error:
        raise ContentsUnreadable("the key does not fit, or the ciphertext was changed") from error
