"""Keeps a chat model's engine loaded: loads it, notices its death, loads it again."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from functools import partial

from meshkit.errors import DependencyUnavailable, FieldInvalid, ModelWarming
from meshkit.log import get_logger
from services.inference.config import InferenceConfig
from services.inference.engine import Engine, EngineDied, start_engine
from services.inference.loading import LoadFailed, beside_loop
from services.inference.measures import LOADS, READY
from services.inference.sampling import Sampling
from services.inference.states import ModelState, ModelStatus
from services.inference.tokenizer import ChatTokenizer

EXPECTED_LOAD_SECONDS = 30.0
"""A first guess; later loads are guessed from the last."""
PROOF_SECONDS = 60.0
LONGEST_PAUSE_SECONDS = 60.0
MOST_DOUBLINGS = 6
"""More would only be cut; a thousand are beyond what a float holds."""
STABLE_SECONDS = 120.0
"""An engine that lived this long is not part of a row of failures."""

log = get_logger()


class EngineKeeper:
    """One chat model: its tokenizer, its engine and the state they are in."""

    def __init__(self, name: str, source: str, config: InferenceConfig, turn: asyncio.Lock) -> None:
        self.name = name
        self._source = source
        self._config = config
        self._turn = turn
        self._tokenizer: ChatTokenizer | None = None
        self._engine: Engine | None = None
        self._failure = ""
        self._was_loaded = False
        self._began = time.monotonic()
        self._load_seconds = EXPECTED_LOAD_SECONDS
        READY.labels(name).set(0)

    @property
    def status(self) -> ModelStatus:
        """What the model is doing now."""
        if self._engine is not None and self._engine.alive:
            return ModelStatus(self.name, ModelState.READY, self._engine.context_tokens)
        if self._failure:
            return ModelStatus(self.name, ModelState.FAILED, self._config.max_model_len, detail=self._failure)
        detail = "its engine died; it is being loaded again" if self._was_loaded else "it is being loaded"
        return ModelStatus(self.name, ModelState.WARMING, self._config.max_model_len, detail=detail)

    def engine(self) -> Engine:
        """The engine, ready to write.

        Raises:
            ModelWarming: While it loads.
            DependencyUnavailable: If it could not be loaded.
        """
        if self._engine is None or not self._engine.alive:
            raise self.refusal()
        return self._engine

    def tokenizer(self) -> ChatTokenizer:
        """The tokenizer, ready long before the engine.

        Raises:
            ModelWarming: While it loads.
            DependencyUnavailable: If it could not be loaded.
        """
        if self._tokenizer is None:
            raise self.refusal()
        return self._tokenizer

    def refusal(self) -> DependencyUnavailable:
        """Why the model does not answer now, and when to ask again."""
        if self._failure:
            return DependencyUnavailable(
                f"model {self.name!r} could not be loaded; ListModels says why",
                retry_after_seconds=LONGEST_PAUSE_SECONDS,
                model=self.name,
            )
        left = self._load_seconds - (time.monotonic() - self._began)
        return ModelWarming(
            f"model {self.name!r} is loading; try again later", retry_after_seconds=max(1.0, left), model=self.name
        )

    async def keep(self) -> None:
        """Load the engine, and again whenever it failed or died, after a growing pause; until cancelled."""
        failures = 0
        while True:
            try:
                engine = await self._load()
            except LoadFailed as failure:
                failures += 1
                self._note_failure(str(failure))
            else:
                lived_seconds = await self._serve(engine)
                failures = 0 if lived_seconds >= STABLE_SECONDS else failures + 1
            await asyncio.sleep(pause_seconds(failures))

    async def _load(self) -> Engine:
        """Load tokenizer and engine; models take turns, for each uses every core."""
        async with self._turn:
            self._began = time.monotonic()
            if self._tokenizer is None:
                waiting = self._config.max_running + self._config.max_waiting
                self._tokenizer = await beside_loop(lambda _: ChatTokenizer(self._source, max_waiting=waiting))
            engine = await beside_loop(partial(start_engine, self.name, self._source, self._config))
            try:
                await prove(engine)
            except BaseException:
                await engine.close()
                raise
            self._load_seconds = time.monotonic() - self._began
            return engine

    async def _serve(self, engine: Engine) -> float:
        """Offer the engine until it dies; returns the seconds it lived."""
        log.info("model_ready", model=self.name, seconds=round(self._load_seconds, 1))
        LOADS.labels(self.name, "ready").inc()
        READY.labels(self.name).set(1)
        self._engine, self._failure, self._was_loaded = engine, "", True
        started = time.monotonic()
        try:
            await engine.dead()
        finally:
            self._engine = None
            READY.labels(self.name).set(0)
            self._began = time.monotonic()
            await engine.close()
        log.error("engine_died", model=self.name)
        return time.monotonic() - started

    def _note_failure(self, why: str) -> None:
        self._failure = why
        LOADS.labels(self.name, "failed").inc()
        log.error("model_failed", model=self.name, why=why)


async def prove(engine: Engine) -> None:
    """Have a fresh engine write one token, so that ready means ready.

    Raises:
        LoadFailed: If it does not, or refuses the sampling that the model's makers advise.
    """
    try:
        async with asyncio.timeout(PROOF_SECONDS), aclosing(engine.write([0], Sampling(), 1)) as pieces:
            async for _ in pieces:
                pass
    except (EngineDied, TimeoutError, FieldInvalid) as error:
        raise LoadFailed(f"the engine loaded but did not answer: {error}") from error


def pause_seconds(failures: int) -> float:
    """How long to wait after so many failures in a row."""
    return min(LONGEST_PAUSE_SECONDS, 2.0 ** min(failures, MOST_DOUBLINGS)) if failures else 0.0
