"""Answers to the short form of a request."""

from __future__ import annotations

from typing import Any

from llmmesh.chat.v1 import chat_pb2
from services.gateway.exchange import CACHED, Finished
from services.gateway.openai.chat_reply import DONE, FINISH_WORDS, event
from services.gateway.openai.report import cost_number, encoder, usage_object
from services.gateway.replay import WholeAnswer


class ShortReply:
    """Writes one answer as `{"content", "provider", "cached", …}`."""

    def __init__(self, model: str) -> None:
        self._model = model

    def whole(self, whole: WholeAnswer) -> bytes:
        """The answer as one object."""
        return encoder.encode({"content": whole.answer.text, **self._report(whole.finished)})

    def opening(self) -> bytes:
        """Nothing: the first event is the first piece."""
        return b""

    def delta(self, delta: chat_pb2.Delta) -> bytes:
        """The event of one piece; nothing for a piece without visible text."""
        return event({"content": delta.text}) if delta.text else b""

    def closing(self, finished: Finished) -> bytes:
        """The last events: where the answer came from, and the end mark."""
        return event({"content": "", **self._report(finished)}) + DONE

    def _report(self, finished: Finished) -> dict[str, Any]:
        report = finished.report
        return {
            "provider": report.provider,
            "cached": report.cache_status in CACHED,
            "model": self._model,
            "finish_reason": FINISH_WORDS.get(finished.finish_reason, "stop"),
            "usage": usage_object(finished.usage, finished.report),
            "cost": cost_number(report),
            "currency": report.currency_code,
            "request_id": report.request_id,
        }
