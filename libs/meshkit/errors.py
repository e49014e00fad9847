"""Failures that cross a room's wall: each names one cause and carries the values its message mentions.

MeshError (INTERNAL)
  FieldInvalid · PromptBlocked · ContextTooLong · MaxCostExceeded  INVALID_ARGUMENT
  CredentialInvalid                                        UNAUTHENTICATED
  RoleMissing · ModelNotAllowed · RegionNotAllowed · EgressRefused  PERMISSION_DENIED
  ModelNotFound · ResourceNotFound                         NOT_FOUND
  ResourceExists                                           ALREADY_EXISTS
  ReservationConflict · VersionConflict · RequestConflict  ABORTED
  BudgetExceeded · RateLimited                             RESOURCE_EXHAUSTED
  ProviderRefused · ResourceInUse                          FAILED_PRECONDITION
  AnswerInvalid                                            DATA_LOSS
  ProviderTimeout · DependencyTimeout                      DEADLINE_EXCEEDED
  DependencyUnavailable (Guard-, Billing-, ProviderUnavailable, ModelWarming, ProviderStreamBroken)  UNAVAILABLE
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import grpc
from google.protobuf import duration_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from meshkit.details import LONGEST_FIELD, LONGEST_MESSAGE, LONGEST_VALUE, attach, cut

DOMAIN = "llmmesh"
STATUS_DETAILS = "grpc-status-details-bin"


class MeshError(Exception):
    """Base of every failure that crosses a room's wall."""

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL
    reason: ClassVar[str] = "INTERNAL"
    headers: Sequence[tuple[str, str]] = ()
    """What else the caller is told, as trailing metadata."""

    def __init__(self, message: str, *, retry_after_seconds: float | None = None, **metadata: str) -> None:
        super().__init__(cut(message, LONGEST_MESSAGE))
        self.metadata = {name: cut(value, LONGEST_VALUE) for name, value in metadata.items()}
        self.retry_after_seconds = retry_after_seconds

    def to_status(self) -> status_pb2.Status:
        """Render as google.rpc.Status with one ErrorInfo, and RetryInfo when a retry can help."""
        status = status_pb2.Status(code=self.code.value[0], message=str(self))
        attach(status, error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN, metadata=self.metadata))
        if self.retry_after_seconds is not None:
            delay = duration_pb2.Duration()
            delay.FromMilliseconds(int(self.retry_after_seconds * 1000))
            attach(status, error_details_pb2.RetryInfo(retry_delay=delay))
        return status


class FieldInvalid(MeshError):
    """A field is missing, malformed or out of range."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "FIELD_INVALID"

    def __init__(self, field: str, message: str) -> None:
        field = cut(field, LONGEST_FIELD)
        super().__init__(f"{field}: {message}", field=field)
        self._message = message

    def inside(self, parent: str) -> FieldInvalid:
        """The same failure, of a field of `parent`."""
        return FieldInvalid(f"{parent}.{self.metadata['field']}", self._message)

    def to_status(self) -> status_pb2.Status:
        """Add BadRequest naming the field."""
        status = super().to_status()
        violation = error_details_pb2.BadRequest.FieldViolation(field=self.metadata["field"], description=str(self))
        attach(status, error_details_pb2.BadRequest(field_violations=[violation]))
        return status


class PromptBlocked(MeshError):
    """The guard refused the prompt."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "PROMPT_BLOCKED"


class ContextTooLong(MeshError):
    """Prompt and answer do not fit the model's context."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "CONTEXT_TOO_LONG"


class MaxCostExceeded(MeshError):
    """The request costs more than its caller or its tenant allows for one."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "MAX_COST_EXCEEDED"


class CredentialInvalid(MeshError):
    """The key is missing, expired, revoked or not ours."""

    code = grpc.StatusCode.UNAUTHENTICATED
    reason = "CREDENTIAL_INVALID"


class RoleMissing(MeshError):
    """The key lacks the role."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = "ROLE_MISSING"


class ModelNotAllowed(MeshError):
    """The tenant may not use the model."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = "MODEL_NOT_ALLOWED"


class RegionNotAllowed(MeshError):
    """No deployment of the model may hold this data."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = "REGION_NOT_ALLOWED"


class EgressRefused(MeshError):
    """A call out of the mesh that the rules forbid was stopped at the last moment: a fault of ours."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = "EGRESS_REFUSED"


class ModelNotFound(MeshError):
    """No such model."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "MODEL_NOT_FOUND"


class ResourceNotFound(MeshError):
    """No such resource, or not the caller's."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "RESOURCE_NOT_FOUND"


class ResourceExists(MeshError):
    """The resource is there already."""

    code = grpc.StatusCode.ALREADY_EXISTS
    reason = "RESOURCE_EXISTS"


class ReservationConflict(MeshError):
    """The request id was used with another body, or the reservation is closed."""

    code = grpc.StatusCode.ABORTED
    reason = "RESERVATION_CONFLICT"


class VersionConflict(MeshError):
    """The resource has changed since its etag was read."""

    code = grpc.StatusCode.ABORTED
    reason = "VERSION_CONFLICT"


class RequestConflict(MeshError):
    """The request id was used with another body."""

    code = grpc.StatusCode.ABORTED
    reason = "REQUEST_CONFLICT"


class ResourceInUse(MeshError):
    """Others depend on the resource."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "RESOURCE_IN_USE"


class BudgetExceeded(MeshError):
    """The budget of this period is spent."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "BUDGET_EXCEEDED"


class RateLimited(MeshError):
    """Too many requests."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "RATE_LIMITED"

    def __init__(
        self,
        message: str,
        *,
        retry_after_seconds: float | None = None,
        headers: Sequence[tuple[str, str]] = (),
        **metadata: str,
    ) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds, **metadata)
        self.headers = headers


class ProviderRefused(MeshError):
    """The provider refused the request itself."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "PROVIDER_REFUSED"


class ProviderTimeout(MeshError):
    """The provider took too long."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    reason = "PROVIDER_TIMEOUT"


class DependencyTimeout(MeshError):
    """A room or store took too long."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    reason = "DEPENDENCY_UNAVAILABLE"


class DependencyUnavailable(MeshError):
    """A room or store is away."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "DEPENDENCY_UNAVAILABLE"


class GuardUnavailable(DependencyUnavailable):
    """The guard cannot give a verdict."""

    reason = "GUARD_UNAVAILABLE"


class BillingUnavailable(DependencyUnavailable):
    """Spending cannot be reserved."""

    reason = "BILLING_UNAVAILABLE"


class ProviderUnavailable(DependencyUnavailable):
    """No allowed provider answered before the first token."""

    reason = "PROVIDER_UNAVAILABLE"


class ModelWarming(DependencyUnavailable):
    """The model is still loading."""

    reason = "MODEL_WARMING"


class ProviderStreamBroken(DependencyUnavailable):
    """The provider's stream broke after the first token."""

    reason = "PROVIDER_STREAM_BROKEN"


class AnswerInvalid(MeshError):
    """The model's answer does not have the form that was asked for, and asking once more did not help."""

    code = grpc.StatusCode.DATA_LOSS
    reason = "ANSWER_INVALID"


def rpc_status(error: grpc.aio.AioRpcError) -> status_pb2.Status | None:
    """The google.rpc.Status an upstream sent with its error; None when it sent none."""
    for name, value in error.trailing_metadata() or ():
        if name == STATUS_DETAILS and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                return None
    return None


def error_info(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo | None:
    """The ErrorInfo of our own domain an upstream sent with its error; None when it sent none."""
    status = rpc_status(error)
    info = error_details_pb2.ErrorInfo()
    for detail in status.details if status else ():
        if detail.Unpack(info) and info.domain == DOMAIN:
            return info
    return None


def error_reason(error: grpc.aio.AioRpcError) -> str | None:
    """The reason an upstream gave, such as "BUDGET_EXCEEDED"; None when it gave none."""
    info = error_info(error)
    return info.reason if info else None
