"""Answers of one chat model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager

from llmmesh.chat.v1 import chat_pb2
from meshkit.deadline import time_left
from meshkit.errors import FieldInvalid, ModelWarming, ProviderStreamBroken, ProviderTimeout, RateLimited
from services.inference.answers import Completion, Ending, Piece, Question, check_least, output_limit
from services.inference.config import InferenceConfig
from services.inference.conversation import Turn
from services.inference.engine import EngineDied
from services.inference.keeper import EngineKeeper
from services.inference.measures import FIRST_TOKEN_SECONDS, REQUESTS, TOKENS
from services.inference.sampling import Sampling
from services.inference.states import ModelStatus

RETRY_AFTER_SECONDS = 1.0


class ChatModel:
    """One chat model, asked for answers; how many at once is bounded."""

    def __init__(self, keeper: EngineKeeper, config: InferenceConfig) -> None:
        self._keeper = keeper
        self._config = config
        self._under_way = 0

    @property
    def status(self) -> ModelStatus:
        """What the model is doing now."""
        return self._keeper.status

    async def count(self, turns: Sequence[Turn]) -> int:
        """Tokens of the conversation, the chat template included."""
        return len(await self._keeper.tokenizer().encode(turns))

    async def answer(self, question: Question) -> AsyncGenerator[str | Ending, None]:
        """Yield texts as the model writes them, then one ending.

        The first text goes out at once; later ones wait for each other for a moment. Closing the generator or
        cancelling its reader stops the engine.

        Raises:
            ModelWarming: Also when the engine dies before the first text; another try will find it loaded again.
            ProviderStreamBroken: If it dies later.
            ProviderTimeout: If the answer takes longer than it may.
        """
        deadline = self._deadline()
        engine = self._keeper.engine()
        with self._admitted():
            prompt = await self._keeper.tokenizer().encode(question.turns)
            limit = output_limit(len(prompt), question.sampling.max_output_tokens, engine.context_tokens)
            check_least(question.sampling, limit)
            writing = engine.write(prompt, question.sampling, limit, question.tenant_id)
            async with aclosing(writing) as pieces, aclosing(self._told(pieces, len(prompt), deadline)) as steps:
                async for step in steps:
                    yield step

    async def complete(self, text: str, sampling: Sampling, tenant_id: str = "") -> Completion:
        """Continue a bare text, and say how it could have begun. Fails as `answer` does; a cancel stops the engine."""
        deadline = self._deadline()
        engine = self._keeper.engine()
        with self._admitted():
            prompt = await self._keeper.tokenizer().encode_text(text)
            if not prompt:
                raise FieldInvalid("text", "must not be empty")
            limit = output_limit(len(prompt), sampling.max_output_tokens, engine.context_tokens)
            async with aclosing(engine.write(prompt, sampling, limit, tenant_id)) as pieces:
                return await self._collected(pieces, len(prompt), deadline)

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + time_left(self._config.answer_seconds)

    async def _collected(self, pieces: AsyncGenerator[Piece, None], prompt_tokens: int, deadline: float) -> Completion:
        texts: list[str] = []
        first_tokens: Mapping[str, float] = {}
        with Progress(self._keeper.name, prompt_tokens) as progress:
            while True:
                piece = await self._next(pieces, progress, deadline)
                progress.add(piece)
                texts.append(piece.text)
                first_tokens = first_tokens or piece.first_tokens
                if piece.finish_reason is not None:
                    return Completion("".join(texts), first_tokens, progress.usage())

    async def _told(
        self, pieces: AsyncGenerator[Piece, None], prompt_tokens: int, deadline: float
    ) -> AsyncGenerator[str | Ending, None]:
        with Progress(self._keeper.name, prompt_tokens) as progress:
            while True:
                piece = await self._next(pieces, progress, deadline)
                progress.add(piece)
                if piece.text:
                    yield piece.text
                if piece.finish_reason is not None:
                    yield Ending(piece.finish_reason, progress.usage())
                    return
                if piece.text:
                    await asyncio.sleep(self._config.coalesce_seconds)

    async def _next(self, pieces: AsyncGenerator[Piece, None], progress: Progress, deadline: float) -> Piece:
        try:
            async with asyncio.timeout_at(deadline):
                return await anext(pieces)
        except TimeoutError:
            raise ProviderTimeout(
                f"model {self._keeper.name!r} did not end its answer in time", model=self._keeper.name
            ) from None
        except (EngineDied, StopAsyncIteration) as error:
            raise self._broken(progress) from error

    def _broken(self, progress: Progress) -> ModelWarming | ProviderStreamBroken:
        name = self._keeper.name
        if progress.has_text:
            return ProviderStreamBroken(f"model {name!r} broke off its answer", model=name)
        return ModelWarming(
            f"model {name!r} is being loaded again; try again later",
            retry_after_seconds=self._keeper.refusal().retry_after_seconds,
            model=name,
        )

    @contextmanager
    def _admitted(self) -> Iterator[None]:
        most = self._config.max_running + self._config.max_waiting
        if self._under_way >= most:
            raise RateLimited(
                f"model {self._keeper.name!r} has {most} questions under way; try again later",
                retry_after_seconds=RETRY_AFTER_SECONDS,
                model=self._keeper.name,
            )
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1


class Progress:
    """How far one answer is, for its ending and for the metrics."""

    def __init__(self, model: str, prompt_tokens: int) -> None:
        self.has_text = False
        self._model = model
        self._prompt_tokens = prompt_tokens
        self._cached_tokens = 0
        self._output_tokens = 0
        self._asked = time.perf_counter()
        self._state = REQUESTS.labels(model, "waiting")

    def __enter__(self) -> Progress:
        self._state.inc()
        return self

    def __exit__(self, *_: object) -> None:
        self._state.dec()
        if self._output_tokens:
            TOKENS.labels(self._model, "input").inc(self._prompt_tokens - self._cached_tokens)
            TOKENS.labels(self._model, "cached_input").inc(self._cached_tokens)
            TOKENS.labels(self._model, "output").inc(self._output_tokens)

    def add(self, piece: Piece) -> None:
        """Count a piece."""
        if not self._output_tokens:
            FIRST_TOKEN_SECONDS.labels(self._model).observe(time.perf_counter() - self._asked)
            self._state.dec()
            self._state = REQUESTS.labels(self._model, "running")
            self._state.inc()
        self._output_tokens += piece.output_tokens
        self._cached_tokens = piece.cached_tokens
        self.has_text = self.has_text or bool(piece.text)

    def usage(self) -> chat_pb2.TokenUsage:
        """What the answer has used; exact once it has ended."""
        return chat_pb2.TokenUsage(
            input_tokens=self._prompt_tokens - self._cached_tokens,
            cached_input_tokens=self._cached_tokens,
            output_tokens=self._output_tokens,
        )
