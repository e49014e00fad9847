"""What the semantic level asks of a vector store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Entry:
    """A question with its answer, ready to be stored."""

    entry_id: str
    """A UUID; storing it again replaces the entry."""
    vector: Sequence[float]
    tenant_id: str
    model: str
    context: str
    """Fingerprint of everything but the question's wording."""
    question: str
    answer: bytes
    expires_at: float
    """Unix seconds."""


@dataclass(frozen=True, slots=True)
class Near:
    """Where to look: a vector, and the one partition whose entries may answer."""

    vector: Sequence[float]
    tenant_id: str
    context: str
    now: float
    """Unix seconds; entries expired by then are not found."""
    at_least: float
    """Least cosine similarity."""
    limit: int


@dataclass(frozen=True, slots=True)
class Match:
    """An entry that was found."""

    similarity: float
    question: str
    answer: bytes


class VectorStore(Protocol):
    """Entries by similarity, partitioned by tenant and context. Every method raises Unavailable when it cannot."""

    async def nearest(self, near: Near) -> list[Match]:
        """The most similar entries of the partition, best first."""

    async def put(self, entry: Entry) -> None:
        """Store an entry; once this returns it survives a kill of the process."""

    async def forget(self, tenant_id: str, model: str = "") -> int:
        """Remove a tenant's entries, or those of one model; returns how many."""

    async def forget_expired(self, now: float) -> int:
        """Remove entries expired by `now` (Unix seconds); returns how many."""
