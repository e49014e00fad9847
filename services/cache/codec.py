"""How an answer is written down in either store."""

from __future__ import annotations

import zlib

from google.protobuf.message import DecodeError

from llmmesh.cache.v1 import cache_pb2

PLAIN = b"\x01"
DEFLATED = b"\x02"
COMPRESS_FROM_BYTES = 4096
"""Shorter answers cost more to compress than they save."""
LARGEST_INFLATED_BYTES = 32 * 1024 * 1024


class EntryCorrupt(Exception):
    """Stored bytes are not an answer this version can read."""


def pack(answer: cache_pb2.CachedAnswer) -> bytes:
    """Write an answer down: one format byte, then the message, compressed when that pays."""
    message = answer.SerializeToString()
    if len(message) < COMPRESS_FROM_BYTES:
        return PLAIN + message
    return DEFLATED + zlib.compress(message, level=1)


def unpack(entry: bytes) -> cache_pb2.CachedAnswer:
    """Read an answer back.

    Raises:
        EntryCorrupt: If the bytes are damaged, cut short or of an unknown format.
    """
    try:
        return cache_pb2.CachedAnswer.FromString(_message(entry))
    except (DecodeError, zlib.error) as error:
        raise EntryCorrupt("the entry does not hold an answer") from error


def _message(entry: bytes) -> bytes:
    if entry[:1] == PLAIN:
        return entry[1:]
    if entry[:1] != DEFLATED:
        raise EntryCorrupt(f"unknown format {entry[:1]!r}")
    inflater = zlib.decompressobj()
    message = inflater.decompress(entry[1:], LARGEST_INFLATED_BYTES)
    if not inflater.eof:
        raise EntryCorrupt("the entry is cut short or inflates beyond bounds")
    return message
