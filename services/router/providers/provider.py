"""The port every provider is called through, in the mesh's own words."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol, TypeAlias

from llmmesh.chat.v1 import chat_pb2
from meshkit.egress import Cargo

Vector: TypeAlias = Sequence[float]


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of an answer, as the provider told it."""

    finish_reason: chat_pb2.FinishReason.ValueType
    usage: chat_pb2.TokenUsage | None
    """None when the provider gave no figures."""
    last: chat_pb2.Delta | None = None
    """What was said in the same breath, after all other pieces."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors in the order of the texts."""

    vectors: Sequence[Vector]
    usage: chat_pb2.TokenUsage | None
    """None when the provider gave no figures."""


AnswerEvent: TypeAlias = chat_pb2.Delta | Ended


def apart(event: AnswerEvent) -> Iterator[AnswerEvent]:
    """An event with what it says before it."""
    if isinstance(event, Ended) and event.last is not None:
        yield event.last
        yield replace(event, last=None)
    else:
        yield event


class Health(StrEnum):
    """Whether a deployment can be called."""

    READY = "ready"
    WARMING = "warming"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class Condition:
    """The state of a deployment."""

    health: Health
    detail: str = ""
    """Why, in words, when it cannot be called."""


class FailureKind(StrEnum):
    """What went wrong with a provider, told apart by what to do about it."""

    REFUSED = "refused"
    """The request itself is at fault; nobody else is asked."""
    TOO_LONG = "too_long"
    """The prompt does not fit; a deployment with more context may answer."""
    NOT_FOUND = "not_found"
    """The provider knows no such model, path or option: a mistake in the routes, or something in the request."""
    CREDENTIAL = "credential"
    """Our credential is wrong, or its account is closed."""
    THROTTLED = "throttled"
    """We asked too often or too much."""
    TIMEOUT = "timeout"
    """It took too long."""
    UNAVAILABLE = "unavailable"
    """It cannot be reached, or fails by itself."""
    MALFORMED = "malformed"
    """What it says is not the protocol."""
    WARMING = "warming"
    """Its model is still loading."""
    BUSY = "busy"
    """It answers as many of us as it may at once; nothing was asked of it."""
    OUTPACED = "outpaced"
    """Another, asked beside it, spoke first; what it made of the request until then may have to be paid for."""
    UNASKED = "unasked"
    """Another spoke first while the request to it still waited here: nothing was asked of it."""

    @property
    def is_of_the_request(self) -> bool:
        """Whether the failure tells nothing about the deployment's health."""
        return self in _OF_THE_REQUEST

    @property
    def reason(self) -> str:
        """The ErrorReason, without its prefix, that tells a caller the same."""
        return _REASONS.get(self, "PROVIDER_UNAVAILABLE")


_OF_THE_REQUEST = frozenset(
    {
        FailureKind.REFUSED,
        FailureKind.TOO_LONG,
        FailureKind.NOT_FOUND,
        FailureKind.WARMING,
        FailureKind.BUSY,
        FailureKind.OUTPACED,
        FailureKind.UNASKED,
    }
)
_REASONS = {
    FailureKind.REFUSED: "PROVIDER_REFUSED",
    FailureKind.TOO_LONG: "CONTEXT_TOO_LONG",
    FailureKind.NOT_FOUND: "PROVIDER_REFUSED",
    FailureKind.CREDENTIAL: "PROVIDER_REFUSED",
    FailureKind.THROTTLED: "RATE_LIMITED",
    FailureKind.TIMEOUT: "PROVIDER_TIMEOUT",
    FailureKind.WARMING: "MODEL_WARMING",
    FailureKind.BUSY: "RATE_LIMITED",
    FailureKind.OUTPACED: "PROVIDER_TIMEOUT",
    FailureKind.UNASKED: "PROVIDER_TIMEOUT",
}


class ProviderFailure(Exception):
    """A provider did not answer; the message is for logs and holds no prompt, answer or secret."""

    def __init__(
        self,
        kind: FailureKind,
        message: str,
        *,
        status: str = "",
        retry_after_seconds: float | None = None,
        public: str = "",
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.status = status
        self.retry_after_seconds = retry_after_seconds
        self.public = public
        """What the caller may read about its request: identifiers, or the words of a room of ours."""


def unsupported(what: str) -> ProviderFailure:
    """The failure of a provider that has no such thing as `what` in the request; another one may."""
    return ProviderFailure(FailureKind.NOT_FOUND, f"cannot be asked for {what}", public=f"no {what}")


class Provider(Protocol):
    """One deployment, spoken to. Failures are ProviderFailure; the caller of the port sets time limits."""

    def stream_chat(self, prompt: chat_pb2.ChatPrompt, cargo: Cargo) -> AsyncGenerator[AnswerEvent, None]:
        """Answer as the model speaks: deltas, perhaps empty, then exactly one Ended.

        `cargo` says what the prompt is: the client that sends it refuses what may not go to its destination.

        Closing the generator, or cancelling it, closes the provider's connection at once.
        """
        ...

    async def embed(self, texts: Sequence[str], cargo: Cargo) -> Embedded:
        """Embed texts, all with the deployment's model; `cargo` as above."""
        ...

    async def condition(self) -> Condition:
        """Ask whether it can be called; within two seconds."""
        ...
