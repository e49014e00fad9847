"""How an answer is written down in either store: a format byte, a seal, then the message, compressed when that pays.

With a cipher all of that but the seal is encrypted, under a format byte of its own.
"""

from __future__ import annotations

import zlib
from typing import Literal, TypeAlias

from google.protobuf.message import DecodeError

from llmmesh.cache.v1 import cache_pb2
from services.cache.encryption import Cipher, Locked
from services.cache.sealing import SEAL_BYTES, Seals

PLAIN = b"\x03"
DEFLATED = b"\x04"
ENCRYPTED = b"\x05"
"""Holds an entry of one of the other formats."""
OUTDATED = frozenset({b"\x01", b"\x02"})
"""Formats of earlier versions."""
COMPRESS_FROM_BYTES = 4096
"""Shorter answers cost more to compress than they save."""
LARGEST_INFLATED_BYTES = 32 * 1024 * 1024

Flaw: TypeAlias = Literal["damaged", "locked", "outdated", "tampered"]
"""Locked: encrypted with a key that is not ours."""


class EntryUnusable(Exception):
    """Stored bytes are no answer to be given."""

    def __init__(self, flaw: Flaw) -> None:
        super().__init__(f"the entry is {flaw}")
        self.flaw: Flaw = flaw


class Codec:
    """Writes and reads entries; `place` is where an entry belongs, and nowhere else can it be read.

    With a cipher entries are written encrypted; those written before are read all the same.
    """

    def __init__(self, seals: Seals, cipher: Cipher | None = None) -> None:
        self._seals = seals
        self._cipher = cipher

    def pack(self, answer: cache_pb2.StoredAnswer, tenant_id: str, place: str) -> bytes:
        """Write an answer down."""
        message = answer.SerializeToString()
        body = PLAIN + message
        if len(message) >= COMPRESS_FROM_BYTES:
            body = DEFLATED + zlib.compress(message, level=1)
        if self._cipher:
            body = ENCRYPTED + self._cipher.encrypt(tenant_id, place, body)
        return body[:1] + self._seals.seal(tenant_id, place, body) + body[1:]

    def unpack(self, entry: bytes, tenant_id: str, place: str) -> cache_pb2.StoredAnswer:
        """Read an answer back.

        Raises:
            EntryUnusable: If the bytes are damaged, of an earlier version, encrypted with another key, or not what was
                written there.
        """
        form, seal, body = entry[:1], entry[1 : 1 + SEAL_BYTES], entry[1 + SEAL_BYTES :]
        if form in OUTDATED:
            raise EntryUnusable("outdated")
        if form not in (PLAIN, DEFLATED, ENCRYPTED):
            raise EntryUnusable("damaged")
        if not self._seals.holds(seal, tenant_id, place, form + body):
            raise EntryUnusable("tampered")
        if form == ENCRYPTED:
            plain = self._decrypted(tenant_id, place, body)
            form, body = plain[:1], plain[1:]
        try:
            return cache_pb2.StoredAnswer.FromString(body if form == PLAIN else _inflated(body))
        except (DecodeError, zlib.error) as error:
            raise EntryUnusable("damaged") from error

    def _decrypted(self, tenant_id: str, place: str, body: bytes) -> bytes:
        if self._cipher is None:
            raise EntryUnusable("locked")
        try:
            return self._cipher.decrypt(tenant_id, place, body)
        except Locked as error:
            raise EntryUnusable("locked") from error


def _inflated(body: bytes) -> bytes:
    inflater = zlib.decompressobj()
    message = inflater.decompress(body, LARGEST_INFLATED_BYTES)
    if not inflater.eof:
        raise EntryUnusable("damaged")
    return message
