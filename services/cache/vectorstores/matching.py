"""Reads back what was stored, from either store."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterable, Mapping
from typing import Any

from services.cache.metrics import UNUSABLE
from services.cache.vectorstores.payload import WORTH
from services.cache.vectorstores.port import Match


def matches(points: Iterable[tuple[str, float, Mapping[str, Any] | None]]) -> list[Match]:
    """Read ids, similarities and payloads; a point that is damaged or of an earlier version is left out and counted."""
    found: list[Match] = []
    for entry_id, similarity, payload in points:
        try:
            found.append(_match(entry_id, similarity, payload or {}))
        except (KeyError, TypeError, ValueError):
            outdated = payload and "answer" in payload and "tokens" not in payload
            UNUSABLE.labels("semantic", "outdated" if outdated else "damaged").inc()
    return found


def _match(entry_id: str, similarity: float, stored: Mapping[str, Any]) -> Match:
    return Match(
        similarity=similarity,
        question=str(stored["question"]),
        answer=b64decode(stored["answer"], validate=True),
        entry_id=entry_id,
        worth=float(stored.get(WORTH, 0.0)),
        saves=float(stored.get("saves", 0.0)),
        reference=str(stored.get("reference", "")),
        tokens=b64decode(stored["tokens"], validate=True),
    )
