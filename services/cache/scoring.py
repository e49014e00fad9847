"""Scores of pairs of questions, from the cross-encoder of the inference service."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmmesh.inference.v1 import inference_pb2
from meshkit.dependency import Unusable
from services.cache.modelcalls import ModelCalls

if TYPE_CHECKING:
    from llmmesh.inference.v1.inference_pb2_grpc import InferenceServiceAsyncStub


class Scorer:
    """Asks the cross-encoder, and keeps the last scores, so that a question asked again is not read again."""

    def __init__(
        self,
        inference: InferenceServiceAsyncStub,
        *,
        model: str,
        scorer: str,
        timeout_seconds: float,
        kept: int,
        at_once: int,
    ) -> None:
        """`scorer` is the cross-encoder whose scores can be weighed."""
        self._inference = inference
        self._model = model
        self._scorer = scorer
        self._kept = kept
        self._made: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._calls = ModelCalls("scores", timeout_seconds=timeout_seconds, at_once=at_once)

    async def log_odds(self, text: str, others: Sequence[str]) -> list[float]:
        """How surely `text` asks the same as each of the others: the natural logarithm of the odds.

        Raises:
            Unavailable: If the model is away, another one, warming or late, or too many scores are under way.
        """
        unknown = [other for other in dict.fromkeys(others) if (text, other) not in self._made]
        made = {other: self._made[text, other] for other in others if other not in unknown}
        if unknown:
            scores = await self._calls.ask(lambda seconds: self._score(text, unknown, seconds))
            made.update(zip(unknown, scores, strict=True))
        for other in unknown:
            self._made[text, other] = made[other]
        while len(self._made) > self._kept:
            self._made.popitem(last=False)
        return [made[other] for other in others]

    async def _score(self, text: str, others: Sequence[str], seconds: float) -> Sequence[float]:
        request = inference_pb2.ScorePairsRequest(model=self._model, text=text, others=others)
        answer = await self._inference.ScorePairs(request, timeout=seconds)
        if answer.scorer != self._scorer or len(answer.log_odds) != len(others):
            raise Unusable(f"{len(answer.log_odds)} scores of {answer.scorer!r}, not {len(others)} of {self._scorer!r}")
        return answer.log_odds
