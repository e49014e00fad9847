"""Turns any failure of a handler into the status its caller sees."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import grpc

from meshkit.errors import (
    STATUS_DETAILS,
    DependencyTimeout,
    DependencyUnavailable,
    MeshError,
    error_info,
    rpc_status,
)
from meshkit.log import get_logger
from meshkit.openai import OPENAI_ERROR, openai_error_header

log = get_logger()


@dataclass(frozen=True, slots=True)
class Failure:
    """A status ready to be sent."""

    code: grpc.StatusCode
    message: str
    trailers: Sequence[tuple[str, str | bytes]]

    @classmethod
    def of(cls, error: Exception, method: str) -> Failure:
        """Render `error`; one that is not ours is logged and its text never leaves the process."""
        if isinstance(error, grpc.aio.AioRpcError):
            if error_info(error) is not None:
                return cls._passed_on(error)
            error = _upstream_fault(error, method)
        if isinstance(error, MeshError):
            return cls._ours(error)
        log.error("unexpected_error", method=method, exc_info=error)
        return cls._ours(MeshError("internal error: the log holds the details under the request id"))

    @classmethod
    def _ours(cls, error: MeshError) -> Failure:
        message = str(error)
        trailers: list[tuple[str, str | bytes]] = [
            (STATUS_DETAILS, error.to_status().SerializeToString()),
            (OPENAI_ERROR, openai_error_header(error.reason, message, error.metadata)),
            *error.headers,
        ]
        if error.retry_after_seconds is not None:
            trailers.append(("retry-after", str(math.ceil(error.retry_after_seconds))))
        return cls(error.code, message, trailers)

    @classmethod
    def _passed_on(cls, error: grpc.aio.AioRpcError) -> Failure:
        status = rpc_status(error)
        kept = [
            (name, value)
            for name, value in error.trailing_metadata() or ()
            if name in (STATUS_DETAILS, OPENAI_ERROR, "retry-after")
        ]
        return cls(error.code(), status.message if status else "", kept)


def _upstream_fault(error: grpc.aio.AioRpcError, method: str) -> MeshError:
    """What to say when a room behind us failed without a reason of its own."""
    log.warning("upstream_failed", method=method, code=error.code().name, details=error.details())
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        return DependencyUnavailable("A part of the service is away: retry in a moment.", retry_after_seconds=2)
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DependencyTimeout("A part of the service took too long: retry in a moment.", retry_after_seconds=2)
    return MeshError("internal error: the log holds the details under the request id")
