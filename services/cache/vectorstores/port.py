"""What the semantic level asks of a vector store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Dimensions:
    """Lengths of the two vectors of every entry."""

    accurate: int
    sketch: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A question with its answer, ready to be stored."""

    entry_id: str
    """A UUID; storing it again replaces the entry."""
    vector: Sequence[float]
    """From the accurate model."""
    sketch: Sequence[float]
    """What the text speaks of, from its words alone."""
    tenant_id: str
    model: str
    context: str
    """Fingerprint of everything but the question's wording."""
    question: str
    answer: bytes
    expires_at: float
    """Unix seconds."""
    stored_at: float = 0.0
    """Unix seconds."""
    reference: str = ""
    """What the entry is called at both levels."""
    subject: str = ""
    """Pseudonyms of the person it was stored for, separated by spaces."""
    sealed_by: str = ""
    """The key of the pseudonyms."""
    worth: float = 0.0
    """What it has saved or may save; the least worth is forgotten first."""
    saves: float = 0.0
    """What one use of it saves."""
    tokens: bytes = b""
    """What the accurate model sees in the question's tokens."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Entries of one tenant: those for which all that is given here holds."""

    tenant_id: str
    model: str = ""
    question_prefix: str = ""
    subject: str = ""
    sealed_by_others_than: str = ""
    """A key; those whose pseudonyms are of other keys, or of an unknown one."""
    reference: str = ""
    stored_until: float | None = None
    """Unix seconds; the entries stored then or before."""


@dataclass(frozen=True, slots=True)
class Glance:
    """Where to look for what may ask the same: a sketch, and the one partition whose entries may answer."""

    sketch: Sequence[float]
    tenant_id: str
    context: str
    now: float
    """Unix seconds; entries expired by then are not found."""
    at_least: float
    """Least cosine of the sketches."""
    limit: int


@dataclass(frozen=True, slots=True)
class Plausible:
    """An entry that may ask the same."""

    entry_id: str
    similarity: float
    """Cosine of the sketches."""
    question: str


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
    among: Sequence[str] = ()
    """Ids of the only entries to look at; all when empty."""


@dataclass(frozen=True, slots=True)
class Match:
    """An entry that was found."""

    similarity: float
    question: str
    answer: bytes
    entry_id: str = ""
    worth: float = 0.0
    saves: float = 0.0
    """What one use of it saves."""
    reference: str = ""
    """What the entry is called at both levels."""
    tokens: bytes = b""
    """What the accurate model sees in the question's tokens."""


class VectorStore(Protocol):
    """Entries by similarity, partitioned by tenant and context. Every method raises Unavailable when it cannot."""

    async def plausible(self, glance: Glance) -> list[Plausible]:
        """The entries of the partition whose sketches are most similar, best first; cheap at any size."""

    async def nearest(self, near: Near) -> list[Match]:
        """The most similar entries of the partition, best first."""

    async def put(self, entry: Entry) -> None:
        """Store an entry; once this returns it survives a kill of the process."""

    async def forget(self, selection: Selection, *, dry_run: bool = False) -> int:
        """Remove the entries of a selection, or with `dry_run` only count them; returns how many."""

    async def reprice(self, worths: Mapping[str, float]) -> None:
        """Set what entries are worth, by id; those that are gone stay gone."""

    async def forget_cheapest(self, most: int, *, share: int) -> int:
        """Remove the entries worth least until at most `most` are left in all; returns how many.

        Those of tenants with more than `share` go first, down to it.
        """

    async def forget_expired(self, now: float) -> int:
        """Remove entries expired by `now` (Unix seconds); returns how many."""
