"""What a failed call to another room means."""

from __future__ import annotations

import grpc

from llmmesh.audit.v1 import audit_pb2
from meshkit.errors import MeshError, error_info, error_reason

_AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def room_away(error: grpc.aio.AioRpcError) -> bool:
    """Whether the room, or its store, is away for now; one that has decided says why and is not."""
    return error.code() in _AWAY or error_reason(error) is None


def attempts_of(error: BaseException) -> list[audit_pb2.Attempt]:
    """The deployments that the router asked in vain, oldest first."""
    info = error_info(error) if isinstance(error, grpc.aio.AioRpcError) else None
    said = info.metadata.get("attempts", "").split() if info else ()
    pairs = (each.rpartition("=") for each in said)
    return [audit_pb2.Attempt(deployment=deployment, reason=reason) for deployment, _, reason in pairs]


def reason_of(error: BaseException) -> str:
    """The ErrorReason behind a failure, whichever room raised it; "INTERNAL" when there is none."""
    if isinstance(error, MeshError):
        return error.reason
    if isinstance(error, grpc.aio.AioRpcError):
        return error_reason(error) or "DEPENDENCY_UNAVAILABLE"
    return "INTERNAL"
