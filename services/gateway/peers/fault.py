"""What a failed call to another room means."""

from __future__ import annotations

import grpc

from meshkit.errors import MeshError, error_reason

_AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def room_away(error: grpc.aio.AioRpcError) -> bool:
    """Whether the room, or its store, is away for now; one that has decided says why and is not."""
    return error.code() in _AWAY or error_reason(error) is None


def reason_of(error: BaseException) -> str:
    """The ErrorReason behind a failure, whichever room raised it; "INTERNAL" when there is none."""
    if isinstance(error, MeshError):
        return error.reason
    if isinstance(error, grpc.aio.AioRpcError):
        return error_reason(error) or "DEPENDENCY_UNAVAILABLE"
    return "INTERNAL"
