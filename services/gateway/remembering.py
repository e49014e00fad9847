"""What the cache is asked before an answer and told after it."""

from __future__ import annotations

import time

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from llmmesh.cache.v1 import cache_pb2
from llmmesh.chat.v1 import chat_pb2
from meshkit.anybody import as_anybody
from meshkit.lots import shows_remote_media, temperature_of
from services.gateway.cache_control import duration
from services.gateway.catalogue import Offer
from services.gateway.exchange import Exchange, Question
from services.gateway.flights import Found
from services.gateway.policies import TenantPolicy

IMPORTED = "import"
"""Who answered what was brought into the cache before anybody asked."""
HIGHEST_SHARED_TEMPERATURE = 1.0
"""Hotter samples are each caller's own; the cache's usual limit."""


def lookup(
    question: Question,
    policy: TenantPolicy,
    guard_policy_version: str,
    level: cache_pb2.CacheLevel.ValueType,
    lease_seconds: float = 0.0,
) -> cache_pb2.LookupAnswerRequest:
    """Ask one level; with `lease_seconds` a miss may bring the sole right to answer, if the answer will be stored.

    Who asks is left out, so that who asks the same shares copies, look-ups and flights too.
    """
    lease = duration(lease_seconds) if lease_seconds and question.cache.writes else None
    return cache_pb2.LookupAnswerRequest(
        prompt=as_anybody(question.prompt),
        guard_policy_version=guard_policy_version,
        level=level,
        max_age=duration(question.cache.max_age_seconds),
        lease=lease,
        limits=policy.cache_limits if lease else None,
    )


def still_served(found: Found, offer: Offer) -> Found:
    """What was found; nothing, as when the cache cannot tell, where its deployment may not answer any more.

    The offer holds all that may, also those that just now cannot.
    """
    answer = found.answer
    if answer is None or answer.deployment in offer.deployments or answer.provider == IMPORTED:
        return found
    return Found(unavailable=True)


def may_be_shared(question: Question, policy: TenantPolicy, found: Found) -> bool:
    """Whether the answer to come is one that others may have: the cache says so by a lease.

    While it is away we judge alone, so that even then a crowd is one model call in each gateway.
    """
    if found.lease_id or found.leased_elsewhere:
        return True
    if not found.unavailable or not question.cache.writes:
        return False
    prompt, limits = question.prompt, policy.cache_limits
    highest = HIGHEST_SHARED_TEMPERATURE
    if limits is not None and limits.HasField("highest_temperature"):
        highest = min(highest, limits.highest_temperature)
    if temperature_of(prompt.options) > highest or shows_remote_media(prompt):
        return False
    return not any(message.role == chat_pb2.ROLE_TOOL for message in prompt.messages)


def answer_to_store(exchange: Exchange) -> cache_pb2.CachedAnswer | None:
    """The answer as others may have it; None unless it is complete and not for one caller alone."""
    complete = exchange.finish_reason == chat_pb2.FINISH_REASON_STOP and not exchange.called_tools
    if not complete or not exchange.cacheable:
        return None
    answer = chat_pb2.Answer(
        text="".join(exchange.answer_texts),
        reasoning="".join(exchange.reasoning_texts),
        finish_reason=exchange.finish_reason,
        usage=exchange.usage,
    )
    return cache_pb2.CachedAnswer(
        answer=answer,
        provider=exchange.provider,
        deployment=exchange.deployment,
        request_id=exchange.caller.request_id,
        cost_micros=exchange.cost_micros,
        currency_code=exchange.currency_code,
        provider_time=_provider_time(exchange),
        piece_lengths=[len(text) for text in exchange.answer_texts if text],
    )


def store_request(
    question: Question, policy: TenantPolicy, exchange: Exchange, answer: cache_pb2.CachedAnswer, lease_id: str
) -> cache_pb2.StoreAnswerRequest:
    """Have an answer stored as the tenant's policy and the caller say."""
    return cache_pb2.StoreAnswerRequest(
        prompt=question.prompt,
        answer=answer,
        guard_policy_version=exchange.guard_policy_version,
        data_class=exchange.data_class,
        ttl=duration(question.cache.ttl_seconds),
        semantic=policy.cache_semantic and question.cache.semantic,
        lease_id=lease_id,
        limits=policy.cache_limits,
        question_time=_question_time(exchange),
    )


def _question_time(exchange: Exchange) -> Timestamp:
    message = Timestamp()
    message.FromNanoseconds(int((time.time() - exchange.seconds()) * 1e9))
    return message


def _provider_time(exchange: Exchange) -> Duration:
    message = Duration()
    message.FromMicroseconds(int(exchange.provider_seconds * 1e6))
    return message
