"""What the cache service and the process that owns the embedded store say to each other: length, then JSON."""

from __future__ import annotations

from typing import Any, TypeAlias

import orjson

Message: TypeAlias = dict[str, Any]

LENGTH_BYTES = 4
LARGEST_FRAME_BYTES = 64 * 1024 * 1024


class FrameInvalid(Exception):
    """Bytes on the pipe are not a frame."""


def frame(message: Message) -> bytes:
    """Write a message as one frame; dataclasses travel as objects."""
    body = orjson.dumps(message)
    return len(body).to_bytes(LENGTH_BYTES) + body


def frame_length(head: bytes) -> int:
    """Length of the body that follows `head`.

    Raises:
        FrameInvalid: If it is beyond bounds.
    """
    length = int.from_bytes(head)
    if length > LARGEST_FRAME_BYTES:
        raise FrameInvalid(f"a frame of {length} bytes")
    return length


def message_in(body: bytes | bytearray | memoryview) -> Message:
    """Read a frame's body."""
    message: Message = orjson.loads(body)
    return message
