"""What makes two questions the same question: the exact key, and the context a question in other words must share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from urllib.parse import quote

from llmmesh.chat.v1 import chat_pb2
from meshkit.anybody import as_anybody
from services.cache.verification.courtesy import without_courtesy

KEY_PREFIX = "llmmesh:cache:2:"
"""The number is the schema of keys and values: raise it, and older entries are never found again."""


@dataclass(frozen=True, slots=True)
class Question:
    """The part of a prompt that may be worded differently, and everything else."""

    text: str
    """What the user asks in the last turn."""
    context: str
    """Fingerprint of the model, the turns before, the options, the tools and the guard's policy version."""
    model: str = ""

    @property
    def bare(self) -> str:
        """What is compared with other questions."""
        return without_courtesy(self.text)

    @property
    def place(self) -> str:
        """Where an answer to this very wording belongs at the semantic level."""
        return f"{self.context}:{self.text}"


def exact_key(tenant_id: str, prompt: chat_pb2.ChatPrompt, guard_policy_version: str) -> str:
    """The Redis key: equal only for a tenant's byte-equal prompts, whoever asks, under one guard policy."""
    digest = _fingerprint(as_anybody(prompt), guard_policy_version, b"exact")
    return f"{key_scope(tenant_id, prompt.model)}{digest}"


@lru_cache(maxsize=4096)
def key_scope(tenant_id: str, model: str = "") -> str:
    """What the keys of a tenant, or of one model of it, start with; holds no character special to Redis patterns."""
    scope = f"{KEY_PREFIX}{quote(tenant_id, safe='')}:"
    return f"{scope}{quote(model, safe='')}:" if model else scope


def entry_id_of(tenant_id: str, key: str) -> str:
    """What identifies an entry within its tenant: the rest of its key, and the same at both levels."""
    return key.removeprefix(key_scope(tenant_id))


def question_of(prompt: chat_pb2.ChatPrompt, guard_policy_version: str) -> Question | None:
    """Split a prompt into its question and its context; None when the last turn is not a user's text."""
    last = prompt.messages[-1]
    text = "\n".join(part.text for part in last.content if part.WhichOneof("part") == "text").strip()
    if last.role != chat_pb2.ROLE_USER or not text:
        return None
    context = chat_pb2.ChatPrompt()
    context.CopyFrom(as_anybody(prompt))
    del context.messages[-1].content[:]
    context.messages[-1].content.extend(_beside_the_text(last))
    return Question(text, _fingerprint(context, guard_policy_version, b"context"), prompt.model)


def _beside_the_text(turn: chat_pb2.ChatMessage) -> list[chat_pb2.ContentPart]:
    """The images and the like of a turn, with an empty text in each text's place: what it speaks of hangs on that."""
    parts = [chat_pb2.ContentPart(text="") if part.WhichOneof("part") == "text" else part for part in turn.content]
    return parts if any(part.WhichOneof("part") != "text" for part in parts) else []


def _fingerprint(prompt: chat_pb2.ChatPrompt, guard_policy_version: str, purpose: bytes) -> str:
    policy = guard_policy_version.encode()
    digest = blake2b(len(policy).to_bytes(4), digest_size=24, person=purpose)
    digest.update(policy)
    digest.update(prompt.SerializeToString(deterministic=True))
    return digest.hexdigest()
