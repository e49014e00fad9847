"""Why the mesh itself ends an answer that a provider would go on with."""

from __future__ import annotations

from typing import ClassVar

from llmmesh.chat.v1 import chat_pb2
from llmmesh.guard.v1 import guard_pb2


class AnswerStopped(Exception):
    """The answer ends here; what was released until now stands."""

    why: ClassVar[str]
    """As metrics spell it."""
    finish_reason: ClassVar[chat_pb2.FinishReason.ValueType] = chat_pb2.FINISH_REASON_LENGTH
    """What the caller is told: `length` is OpenAI's word for every limit, `content_filter` for what may not be said."""

    def __init__(self, verdict: guard_pb2.Verdict | None = None) -> None:
        super().__init__(self.why)
        self.verdict = verdict


class AnswerBlocked(AnswerStopped):
    """The guard found what may not be said."""

    why = "guard"
    finish_reason = chat_pb2.FINISH_REASON_CONTENT_FILTER


class AnswerRunaway(AnswerStopped):
    """The guard saw the answer repeat itself, and nothing else, for too long."""

    why = "repetition"


class CostReached(AnswerStopped):
    """The answer is as long as the request may pay for."""

    why = "cost"
