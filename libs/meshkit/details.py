"""What an error carries beside its code, cut so that all of it fits the headers of one answer."""

from __future__ import annotations

from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

LONGEST_MESSAGE = 800
"""Bytes of a message: it stands in three headers, in two of them escaped, and grpc takes 8 KiB of headers for sure."""
LONGEST_VALUE = 400
"""Bytes of one value of the metadata."""
LONGEST_FIELD = 120
"""Bytes of the name of a field: it stands in three places."""


def cut(text: str, longest: int) -> str:
    """The beginning of a text that is at most `longest` bytes of UTF-8, without half a character at its end."""
    return text.encode(errors="replace")[:longest].decode(errors="ignore")


def attach(
    status: status_pb2.Status,
    message: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo,
) -> None:
    """Add a detail to a status."""
    detail = any_pb2.Any()
    detail.Pack(message)
    status.details.append(detail)
