"""Reads back what was stored, from either store."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterable, Mapping
from typing import Any

from services.cache.metrics import UNUSABLE
from services.cache.vectorstores.payload import WORTH
from services.cache.vectorstores.port import Match


def matches(points: Iterable[tuple[str, float, Mapping[str, Any] | None]]) -> list[Match]:
    """Read ids, similarities and payloads; a damaged point is left out and counted."""
    found: list[Match] = []
    for entry_id, similarity, payload in points:
        try:
            stored = payload or {}
            answer = b64decode(stored["answer"], validate=True)
            worth, saves = float(stored.get(WORTH, 0.0)), float(stored.get("saves", 0.0))
            reference = str(stored.get("reference", ""))
            found.append(Match(similarity, str(stored["question"]), answer, entry_id, worth, saves, reference))
        except (KeyError, TypeError, ValueError):
            UNUSABLE.labels("semantic", "damaged").inc()
    return found
