"""Reads back what was stored, from either store."""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Iterable, Mapping
from typing import Any

from services.cache.metrics import UNUSABLE
from services.cache.vectorstores.port import Match


def matches(points: Iterable[tuple[float, Mapping[str, Any] | None]]) -> list[Match]:
    """Read similarities and payloads; a damaged point is left out and counted."""
    found: list[Match] = []
    for similarity, payload in points:
        try:
            stored = payload or {}
            found.append(Match(similarity, str(stored["question"]), b64decode(stored["answer"], validate=True)))
        except (KeyError, TypeError, binascii.Error):
            UNUSABLE.labels("semantic", "damaged").inc()
    return found
