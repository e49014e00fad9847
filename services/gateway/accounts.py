"""Writes down what became of each request: audit events, ledger rows of cached answers, metrics."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager

from google.protobuf import timestamp_pb2

from llmmesh.audit.v1 import audit_pb2, contents_pb2
from llmmesh.billing.v1 import billing_pb2
from llmmesh.cache.v1 import cache_pb2
from llmmesh.chat.v1 import chat_pb2
from llmmesh.gateway.v1 import gateway_pb2
from meshkit.log import get_logger
from meshkit.usage import all_input_tokens, all_output_tokens
from services.gateway.exchange import CACHED, Exchange, cache_word
from services.gateway.measures import STOPPED, TOKENS, meters_of
from services.gateway.peers.fault import attempts_of, reason_of

REFUSALS = frozenset(
    {
        "FIELD_INVALID",
        "CONTEXT_TOO_LONG",
        "CREDENTIAL_INVALID",
        "MODEL_NOT_FOUND",
        "MODEL_NOT_ALLOWED",
        "REGION_NOT_ALLOWED",
        "BUDGET_EXCEEDED",
        "MAX_COST_EXCEEDED",
        "RATE_LIMITED",
        "PROVIDER_REFUSED",
    }
)
"""Reasons that are the caller's to change."""
ASKED = frozenset(
    {
        gateway_pb2.CACHE_STATUS_EXACT,
        gateway_pb2.CACHE_STATUS_SEMANTIC,
        gateway_pb2.CACHE_STATUS_MISS,
        gateway_pb2.CACHE_STATUS_UNAVAILABLE,
    }
)

PROMPT_JOINT = "\n"

log = get_logger()


class Accounts:
    """Takes every exchange at its end; nothing here waits."""

    def __init__(
        self,
        events: Callable[[audit_pb2.Event], bool],
        records: Callable[[billing_pb2.UsageRecord], bool],
        uses: Callable[[cache_pb2.CacheUse], bool],
        contents: Callable[[contents_pb2.KeepContentsRequest], bool],
        record_now: Callable[[Sequence[audit_pb2.Event]], Awaitable[None]],
    ) -> None:
        self._put_event = events
        self._put_record = records
        self._put_use = uses
        self._put_contents = contents
        self._record_now = record_now

    @asynccontextmanager
    async def recorded(self, exchange: Exchange) -> AsyncIterator[None]:
        """Write down how the block ended: answered, stopped, blocked, refused, failed or cancelled.

        A blocked prompt is in the audit log before its caller hears of it, unless billing is away.
        """
        outcome, reason = "answered", ""
        try:
            yield
            if exchange.stopped_for or exchange.finish_reason == chat_pb2.FINISH_REASON_CONTENT_FILTER:
                outcome, reason = "stopped", exchange.stopped_for
        except (asyncio.CancelledError, GeneratorExit):
            outcome = "cancelled"
            raise
        except Exception as error:
            reason = reason_of(error)
            exchange.attempts = attempts_of(error) or exchange.attempts
            outcome = "blocked" if reason == "PROMPT_BLOCKED" else "refused" if reason in REFUSALS else "failed"
            raise
        finally:
            seconds, nanos = divmod(time.time_ns(), 1_000_000_000)
            now = timestamp_pb2.Timestamp(seconds=seconds, nanos=nanos)
            self._write(exchange, outcome, now)
            if exchange.caller.tenant_id:
                event = _event(exchange, outcome, reason, now)
                if outcome == "blocked":
                    await self._write_now(event)
                else:
                    self._put_event(event)

    async def _write_now(self, event: audit_pb2.Event) -> None:
        try:
            await self._record_now([event])
        except Exception as error:  # noqa: BLE001 - the caller is to hear of the block, whatever became of this
            log.warning("blocked_prompt_written_later", error=type(error).__name__)
            self._put_event(event)
        except BaseException:
            # It may be there or not: a repeat is skipped.
            self._put_event(event)
            raise

    def _write(self, exchange: Exchange, outcome: str, now: timestamp_pb2.Timestamp) -> None:
        if outcome in ("answered", "stopped") and exchange.cache_status in CACHED:
            self._put_record(_usage_record(exchange, now))
        if exchange.cache_status in ASKED and exchange.caller.tenant_id:
            self._put_use(_cache_use(exchange))
        if exchange.keeps_contents:
            self._put_contents(_contents(exchange))
        _measure(exchange, outcome)


def _event(exchange: Exchange, outcome: str, reason: str, now: timestamp_pb2.Timestamp) -> audit_pb2.Event:
    caller = exchange.caller
    return audit_pb2.Event(
        request_id=caller.request_id,
        tenant_id=caller.tenant_id,
        key_id=caller.key_id,
        model=exchange.model,
        outcome=outcome,
        reason=reason,
        data_class=exchange.data_class,
        guard_rules=exchange.guard_rules,
        guard_policy_version="" if exchange.unguarded else exchange.guard_policy_version,
        deployment=exchange.deployment,
        cache_status=cache_word(exchange.cache_status),
        prompt_sha256=_sha256(exchange.prompt_texts, PROMPT_JOINT),
        answer_sha256=_sha256(exchange.answer_texts, "") if exchange.answer_texts else "",
        create_time=now,
        findings=exchange.findings.values(),
        unguarded=exchange.unguarded,
        tenant_policy_version=exchange.tenant_policy_version,
        provider=exchange.provider,
        candidates=exchange.candidates,
        attempts=exchange.attempts,
        routes_version=exchange.routes_version,
        price_time=exchange.price_time,
        cached_request_id=exchange.cached_request_id,
        cost_micros=exchange.cost_micros,
        currency_code=exchange.currency_code,
        finish_reason=exchange.finish_reason,
    )


def _contents(exchange: Exchange) -> contents_pb2.KeepContentsRequest:
    return contents_pb2.KeepContentsRequest(
        tenant_id=exchange.caller.tenant_id,
        request_id=exchange.caller.request_id,
        prompt=PROMPT_JOINT.join(exchange.prompt_texts),
        answer="".join(exchange.answer_texts),
    )


def _usage_record(exchange: Exchange, now: timestamp_pb2.Timestamp) -> billing_pb2.UsageRecord:
    return billing_pb2.UsageRecord(
        request_id=exchange.caller.request_id,
        tenant_id=exchange.caller.tenant_id,
        key_id=exchange.caller.key_id,
        model=exchange.model,
        deployment=exchange.deployment,
        provider=exchange.provider,
        cache_status=cache_word(exchange.cache_status),
        usage=exchange.usage,
        finish_reason=exchange.finish_reason,
        create_time=now,
    )


def _cache_use(exchange: Exchange) -> cache_pb2.CacheUse:
    use = cache_pb2.CacheUse(
        request_id=exchange.caller.request_id,
        tenant_id=exchange.caller.tenant_id,
        model=exchange.model,
        outcome=cache_word(exchange.cache_status),
        similarity=exchange.similarity,
    )
    cached = exchange.cached
    if cached is not None:
        use.entry_id, use.answered_request_id = cached.entry_id, cached.request_id
        use.saved_micros, use.currency_code = cached.cost_micros, cached.currency_code
        saved_ms = cached.provider_time.ToMilliseconds() - round(exchange.seconds() * 1000)
        use.saved_time.FromMilliseconds(max(0, saved_ms))
    return use


def _measure(exchange: Exchange, outcome: str) -> None:
    model = exchange.model if exchange.known_model else "unknown"
    cache = cache_word(exchange.cache_status) or "none"
    meters = meters_of(model, cache, outcome)
    meters.requests.inc()
    meters.seconds.observe(exchange.seconds())
    if exchange.stopped_for:
        STOPPED.labels(model, exchange.stopped_for).inc()
    if exchange.first_byte_seconds is not None:
        meters.first_byte_seconds.observe(exchange.first_byte_seconds)
        meters.overhead_seconds.observe(exchange.overhead_seconds())
    if exchange.cache_status not in CACHED and exchange.deployment:
        TOKENS.labels(model, "input").inc(all_input_tokens(exchange.usage))
        TOKENS.labels(model, "output").inc(all_output_tokens(exchange.usage))


def _sha256(texts: Iterable[str], joint: str) -> str:
    return hashlib.sha256(joint.join(texts).encode()).hexdigest()
