"""The one interceptor: identity, deadline, access, errors and metrics around every RPC."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, ParamSpec, TypeAlias, TypeVar, cast
from weakref import WeakSet

import grpc
from prometheus_client import Counter, Histogram

from meshkit.access import admit
from meshkit.deadline import enter_deadline
from meshkit.failure import Failure
from meshkit.identity import Identity, enter_identity
from meshkit.metrics import HANDLED, HANDLING_SECONDS

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Given = ParamSpec("Given")
Message = TypeVar("Message")

_SAYING_LAST: WeakSet[Callable[..., Any]] = WeakSet()


@dataclass(frozen=True, slots=True)
class Last(Generic[Message]):
    """The last message of a stream."""

    message: Message


def says_last(
    behaviour: Callable[Given, AsyncGenerator[Message | Last[Message], None]],
) -> Callable[Given, AsyncGenerator[Message, None]]:
    """Mark a method whose every good stream ends with a `Last`: that is sent in one write with the status.

    Apart they take a write, a wake-up and a read more at each hop.
    """
    _SAYING_LAST.add(behaviour)
    return cast(Callable[Given, AsyncGenerator[Message, None]], behaviour)


class Calls:
    """The calls that a server is serving, and what tells it which keys are no longer good."""

    def __init__(self, revoked: Callable[[str], bool]) -> None:
        self.revoked = revoked
        self._under_way = 0
        self._none = asyncio.Event()
        self._none.set()

    def begin(self) -> None:
        """One more."""
        self._under_way += 1
        self._none.clear()

    def end(self) -> None:
        """One less."""
        self._under_way -= 1
        if not self._under_way:
            self._none.set()

    async def ended(self) -> None:
        """Return once none is being served."""
        await self._none.wait()


class MeshInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every method of our own packages; health and reflection pass untouched."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._wrapped: dict[str, Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Find the handler, wrapped once per method."""
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is not None:
            return wrapped
        handler = await continuation(handler_call_details)
        if handler is None or not method.startswith("/llmmesh."):
            return handler
        self._wrapped[method] = _wrap(handler, method, self._calls)
        return self._wrapped[method]


class _Call:
    """One RPC being served."""

    def __init__(self, method: str, context: Context, calls: Calls) -> None:
        self._method = method
        self._context = context
        self._calls = calls
        self._started = time.perf_counter()
        self._code = "OK"
        calls.begin()

    def enter(self) -> None:
        """Set caller and deadline for this task, and check the caller's key and roles."""
        identity = Identity.from_metadata(dict(self._context.invocation_metadata() or ()))
        enter_identity(identity)
        enter_deadline(self._context.time_remaining())
        admit(self._method, identity, self._calls.revoked)

    async def refuse(self, error: Exception) -> None:
        """End the call with the status `error` stands for; raises."""
        if isinstance(error, grpc.aio.AbortError):
            raise error
        failure = Failure.of(error, self._method)
        self._code = failure.code.name
        await self._context.abort(failure.code, failure.message, tuple(failure.trailers))

    def cancelled(self) -> None:
        """Remember that the caller went away."""
        self._code = "CANCELLED"

    def leave(self) -> None:
        """Count the call, which has ended."""
        self._calls.end()
        handled, handling_seconds = _meters(self._method, self._code)
        handled.inc()
        handling_seconds.observe(time.perf_counter() - self._started)


@cache
def _meters(path: str, code: str) -> tuple[Counter, Histogram]:
    """The meters of one RPC with their labels; finding labels costs more than counting."""
    service, _, method = path.lstrip("/").rpartition("/")
    return HANDLED.labels(service, method, code), HANDLING_SECONDS.labels(service, method)


def _wrap(handler: Handler, method: str, calls: Calls) -> Handler:
    """The same handler with our boundary around its one behaviour."""
    asked = "stream" if handler.request_streaming else "unary"
    answered = "stream" if handler.response_streaming else "unary"
    kind = f"{asked}_{answered}"
    behaviour = getattr(handler, kind)
    # RpcMethodHandler is a named tuple at run time; its type stubs do not say so.
    plain = cast(Any, handler)
    if getattr(behaviour, "__func__", behaviour) in _SAYING_LAST:
        # On the wire a method with one answer is a stream of one message, which grpc sends together with the status.
        serve = _guarded(_written_to_the_last(behaviour, plain.response_serializer), method, calls)
        plain = plain._replace(**{"response_streaming": False, kind: None, f"{asked}_unary": serve})
    else:
        boundary = _guarded_stream if handler.response_streaming else _guarded
        plain = plain._replace(**{kind: boundary(behaviour, method, calls)})
    return cast(Handler, plain)


def _written_to_the_last(
    behaviour: Callable[..., AsyncGenerator[Any, None]], serialized: Callable[[Any], bytes]
) -> Callable[..., Any]:
    """The stream of `behaviour` as a method with one answer, its last message; those before it are written as bytes."""

    async def serve(request: Any, context: Context) -> Any:
        async with aclosing(behaviour(request, context)) as steps:
            async for step in steps:
                if isinstance(step, Last):
                    return step.message
                await context.write(serialized(step))
        raise RuntimeError("the stream ended without its last message")

    return serve


def _guarded(behaviour: Callable[..., Any], method: str, calls: Calls) -> Callable[..., Any]:
    async def serve(request: Any, context: Context) -> Any:
        call = _Call(method, context, calls)
        try:
            call.enter()
            return await behaviour(request, context)
        except Exception as error:  # noqa: BLE001 - the boundary: nothing unknown may leave the process
            await call.refuse(error)
        except BaseException:
            call.cancelled()
            raise
        finally:
            call.leave()

    return serve


def _guarded_stream(behaviour: Callable[..., Any], method: str, calls: Calls) -> Callable[..., Any]:
    async def serve(request: Any, context: Context) -> AsyncIterator[Any]:
        call = _Call(method, context, calls)
        try:
            call.enter()
            # An async generator, not context.write: a cancel then runs the method's `finally` at once.
            async with aclosing(behaviour(request, context)) as steps:
                async for step in steps:
                    yield step
        except Exception as error:  # noqa: BLE001 - the boundary: nothing unknown may leave the process
            await call.refuse(error)
        except BaseException:
            call.cancelled()
            raise
        finally:
            call.leave()

    return serve
