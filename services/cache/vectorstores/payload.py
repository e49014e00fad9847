"""What a stored point carries beside its vector, the same in either store."""

from __future__ import annotations

from base64 import b64encode

from services.cache.vectorstores.port import Entry

KEYWORDS = ("tenant", "context", "model")
"""Fields that filters ask for."""
EXPIRY = "expires_at"
ANSWERING = ("question", "answer")
"""Fields that a match is made of."""


def payload_of(entry: Entry) -> dict[str, str | float]:
    """What to store with an entry's vector."""
    return {
        "tenant": entry.tenant_id,
        "context": entry.context,
        "model": entry.model,
        EXPIRY: entry.expires_at,
        "question": entry.question,
        "answer": b64encode(entry.answer).decode(),
    }
