"""What a stored point carries beside its vector, the same in either store."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator

from services.cache.vectorstores.port import Entry, Selection

ACCURATE = "accurate"
SKETCH = "sketch"
"""Names of an entry's two vectors."""
SEALED_BY = "sealed_by"
KEYWORDS = ("tenant", "context", "model", "reference", "subject", SEALED_BY)
"""Fields that filters ask for; the first divides all entries into tenants'."""
EXPIRY = "expires_at"
STORED = "stored_at"
WORTH = "worth"
NUMBERS = (EXPIRY, STORED, WORTH)
"""Fields that are compared and sorted by."""
ANSWERING = ("question", "answer", "tokens", WORTH, "saves", "reference")
"""Fields that a match is made of."""


def payload_of(entry: Entry) -> dict[str, str | float | list[str]]:
    """What to store with an entry's vector."""
    return {
        "tenant": entry.tenant_id,
        "context": entry.context,
        "model": entry.model,
        "reference": entry.reference,
        "subject": entry.subject.split(),  # a filter asks for any of them
        SEALED_BY: entry.sealed_by,
        EXPIRY: entry.expires_at,
        STORED: entry.stored_at,
        WORTH: entry.worth,
        "saves": entry.saves,
        "question": entry.question,
        "answer": b64encode(entry.answer).decode(),
        "tokens": b64encode(entry.tokens).decode(),
    }


def equal_fields(selection: Selection) -> Iterator[tuple[str, str]]:
    """The fields that chosen entries have in common, and what they hold."""
    yield "tenant", selection.tenant_id
    for field in ("model", "subject", "reference"):
        if wanted := getattr(selection, field):
            yield field, wanted
