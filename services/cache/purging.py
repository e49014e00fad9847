"""Which answers a purge takes, at both levels alike."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import quote

from llmmesh.cache.v1 import cache_pb2
from llmmesh.chat.v1 import chat_pb2
from meshkit.anybody import metadata_of
from meshkit.lots import extra
from services.cache.codec import Codec, EntryUnusable
from services.cache.keys import key_scope
from services.cache.vectorstores.port import Selection

QUESTION_CHARACTERS = 200
"""Characters of a question that are written down beside its exact answer; a longer prefix matches none."""


@dataclass(slots=True)
class Forgotten:
    """How many answers a purge removed, and what it could not reach."""

    exact_count: int = 0
    semantic_count: int = 0
    away: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ExactSelection:
    """A selection at the exact level: by key as far as keys go, then by what is written in the entries."""

    selection: Selection
    codec: Codec

    @property
    def key(self) -> str:
        """The only key it may be; empty when there may be others."""
        chosen = self.selection
        return key_scope(chosen.tenant_id) + chosen.reference if chosen.reference else ""

    @property
    def scope(self) -> str:
        """What the keys start with."""
        return key_scope(self.selection.tenant_id, self.selection.model)

    @property
    def needs_entries(self) -> bool:
        """Whether keys alone do not tell."""
        chosen = self.selection
        return bool(chosen.question_prefix or chosen.subject or chosen.stored_until is not None)

    def takes(self, key: str, entry: bytes) -> bool:
        """Whether an entry is chosen; one that cannot be read is, for nobody can say whose it is."""
        chosen = self.selection
        try:
            stored = self.codec.unpack(entry, chosen.tenant_id, key)
        except EntryUnusable:
            return True
        in_time = chosen.stored_until is None or stored.answer.create_time.ToNanoseconds() / 1e9 <= chosen.stored_until
        whose = not chosen.subject or chosen.subject in stored.subject.split()
        return in_time and whose and stored.question.startswith(chosen.question_prefix)


def subjects_of(prompt: chat_pb2.ChatPrompt) -> list[str]:
    """Whom an answer is about, by every name that the application gives; empty when it does not say."""
    options = prompt.options
    named = (options.user, extra(options, "safety_identifier"), metadata_of(options).get("subject"))
    return list(dict.fromkeys(name for name in named if isinstance(name, str) and name))


def selection_of(tenant_id: str, request: cache_pb2.PurgeAnswersRequest, subject: str, now: float) -> Selection:
    """What a request chooses; `subject` is the pseudonym of whom it names."""
    return Selection(
        tenant_id=tenant_id,
        model=request.model,
        question_prefix=request.question_prefix,
        subject=subject,
        reference=request.entry_id,
        stored_until=now - request.min_age.ToNanoseconds() / 1e9 if request.HasField("min_age") else None,
    )


def note_of(selection: Selection) -> str:
    """The name a purge is noted by: the narrowest thing that all it takes have in common."""
    for kind in ("reference", "subject", "model"):
        if value := getattr(selection, kind):
            return _note(selection.tenant_id, kind, value)
    return _note(selection.tenant_id)


def notes_on(tenant_id: str, stored: cache_pb2.StoredAnswer) -> list[str]:
    """The names that a purge which takes the answer may be noted by."""
    answer = stored.answer
    about = [("reference", answer.entry_id), *(("subject", each) for each in stored.subject.split())]
    return [_note(tenant_id), *(_note(tenant_id, kind, value) for kind, value in (*about, ("model", answer.model)))]


def _note(*parts: str) -> str:
    return ":".join(quote(part, safe="") for part in parts)
