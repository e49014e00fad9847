"""Stores question and answer pairs that people wrote, as if a model had given them; each passes the guard first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

from llmmesh.cache.v1 import cache_pb2
from llmmesh.chat.v1 import chat_pb2
from llmmesh.guard.v1 import guard_pb2
from meshkit.policy_version import parted

if TYPE_CHECKING:
    from llmmesh.cache.v1.cache_pb2_grpc import CacheServiceAsyncStub
    from llmmesh.guard.v1.guard_pb2_grpc import GuardServiceAsyncStub

CALL_SECONDS = 30.0
PROVIDER = "import"
"""Who gave these answers, as headers and statistics name it."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A question and its answer."""

    question: str
    answer: str
    model: str
    system: str = ""


class Warming:
    """Stores pairs for the tenant on whose behalf it is called."""

    def __init__(self, cache: CacheServiceAsyncStub, guard: GuardServiceAsyncStub, *, ttl_seconds: int) -> None:
        self._cache = cache
        self._guard = guard
        self._ttl_seconds = ttl_seconds

    async def store(self, pairs: Iterable[Pair]) -> Counter[str]:
        """Store each pair that the guard lets pass; returns how many went where: both, exact, blocked or refused."""
        outcomes: Counter[str] = Counter()
        for pair in pairs:
            outcomes[await self._store(pair)] += 1
        return outcomes

    async def _store(self, pair: Pair) -> str:
        prompt = _prompt(pair)
        judged = guard_pb2.CheckTextRequest(text=pair.answer, direction=guard_pb2.DIRECTION_OUTPUT, tenant_rules=True)
        said = (await self._guard.CheckText(judged, timeout=CALL_SECONDS)).verdict
        checked = guard_pb2.CheckPromptRequest(messages=prompt.messages)
        checked.policy.rules_version = parted(said.policy_version)[1]
        asked = (await self._guard.CheckPrompt(checked, timeout=CALL_SECONDS)).verdict
        if not asked.action == said.action == guard_pb2.ACTION_ALLOW or asked.policy_version != said.policy_version:
            return "blocked"
        request = cache_pb2.StoreAnswerRequest(
            prompt=prompt,
            answer=_answer(pair),
            guard_policy_version=asked.policy_version,
            data_class=max(asked.data_class, said.data_class),
            semantic=True,
        )
        request.ttl.FromSeconds(self._ttl_seconds)
        levels = (await self._cache.StoreAnswer(request, timeout=CALL_SECONDS)).levels
        return "both" if len(levels) > 1 else "exact" if levels else "refused"


def _prompt(pair: Pair) -> chat_pb2.ChatPrompt:
    turns = [(chat_pb2.ROLE_SYSTEM, pair.system)] if pair.system else []
    return chat_pb2.ChatPrompt(
        model=pair.model,
        messages=[
            chat_pb2.ChatMessage(role=role, content=[chat_pb2.ContentPart(text=text)])
            for role, text in [*turns, (chat_pb2.ROLE_USER, pair.question)]
        ],
    )


def _answer(pair: Pair) -> cache_pb2.CachedAnswer:
    said = chat_pb2.Answer(text=pair.answer, finish_reason=chat_pb2.FINISH_REASON_STOP)
    return cache_pb2.CachedAnswer(
        answer=said, provider=PROVIDER, deployment=f"{PROVIDER}/{pair.model}", request_id=f"import-{uuid4()}"
    )
