"""What a failed call to another room means."""

from __future__ import annotations

import grpc

from meshkit.errors import MeshError, error_reason

_AWAY = frozenset({None, "DEPENDENCY_UNAVAILABLE"})


def room_away(error: grpc.aio.AioRpcError) -> bool:
    """Whether the room, or its store, could not be reached; a room that was reached gives its reason."""
    return error_reason(error) in _AWAY


def reason_of(error: BaseException) -> str:
    """The ErrorReason behind a failure, whichever room raised it; "INTERNAL" when there is none."""
    if isinstance(error, MeshError):
        return error.reason
    if isinstance(error, grpc.aio.AioRpcError):
        return error_reason(error) or "DEPENDENCY_UNAVAILABLE"
    return "INTERNAL"
