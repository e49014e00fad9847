"""Asks something outside the room that may be slow, frozen or away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from meshkit.breaker import Breaker
from meshkit.log import get_logger

T = TypeVar("T")

REFUSAL_LOG_SECONDS = 60.0
"""At most one refusal in so long is logged: a full store refuses every write."""

log = get_logger()


class Unavailable(Exception):
    """A store or a service could not be asked in time, or would not do it."""


class Unusable(Exception):
    """A dependency answered, but nothing that could be used."""


class Dependency:
    """One outside thing: an operation ends at its deadline, and after a failure nothing is asked until a retry is due.

    So a frozen dependency costs one caller one deadline, and the others nothing.
    """

    def __init__(
        self, name: str, *, faults: tuple[type[Exception], ...] = (), refusals: tuple[type[Exception], ...] = ()
    ) -> None:
        self._name = name
        self._faults: tuple[type[Exception], ...] = (*faults, Unusable, TimeoutError, OSError)
        self._refusals = refusals
        self._breaker = Breaker()
        self._refusal_logged_at = -REFUSAL_LOG_SECONDS

    @property
    def is_on_trial(self) -> bool:
        """Whether it was away and one operation is finding out whether it is back."""
        return self._breaker.is_on_trial

    async def ask(self, operation: Callable[[], Awaitable[T]], *, timeout_seconds: float) -> T:
        """Run `operation` within `timeout_seconds`.

        Raises:
            Unavailable: If it fails, is late or is refused, or a retry is not yet due.
        """
        if not self._breaker.admits():
            raise Unavailable(f"{self._name} is away")
        is_trial = self._breaker.is_open  # which admits nothing else
        try:
            async with asyncio.timeout(timeout_seconds):
                answer = await operation()
        except self._refusals as error:
            self._note_refusal(error)
            raise Unavailable(f"{self._name} refused") from error
        except self._faults as error:
            self._note_failure(error, was_trial=is_trial)
            raise Unavailable(f"{self._name} is away") from error
        except BaseException:
            self._breaker.abandoned(was_trial=is_trial)
            raise
        self._note_success()
        return answer

    def _note_failure(self, error: Exception, *, was_trial: bool) -> None:
        if not self._breaker.is_open:
            log.warning("dependency_away", dependency=self._name, error=type(error).__name__, detail=str(error)[:300])
        self._breaker.failed(was_trial=was_trial)

    def _note_refusal(self, error: Exception) -> None:
        """It is there, so the next operation may well succeed: a full Redis still reads."""
        self._note_success()
        if time.monotonic() - self._refusal_logged_at >= REFUSAL_LOG_SECONDS:
            self._refusal_logged_at = time.monotonic()
            log.warning("dependency_refused", dependency=self._name, detail=str(error)[:300])

    def _note_success(self) -> None:
        if self._breaker.is_open:
            log.info("dependency_back", dependency=self._name)
            self._breaker.succeeded()
