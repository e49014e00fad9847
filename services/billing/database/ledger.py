"""Reading the ledger, and writing the rows that cost nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import ColumnElement, RowMapping, func, select, text, tuple_

from services.billing.database.books import ledger
from services.billing.database.engine import Database
from services.billing.ledger import LedgerFilter, LedgerRow, PricedHit, Recorded, UsageSummary, UsageTotal
from services.billing.pagination import Position
from services.billing.prices import Usage

_RECORD = text("""
WITH hit AS MATERIALIZED (
    SELECT * FROM json_to_recordset(CAST(:hits AS json)) AS hit(
        ordinal int, tenant_id text, request_id text, key_id text, model text, deployment text, provider text,
        cache_status text, input_tokens int, cached_input_tokens int, cache_write_tokens int, output_tokens int,
        reasoning_tokens int, image_count int, estimated boolean, saved_micros bigint, currency_code text,
        finish_reason text, create_time timestamptz)
),
billed AS (
    INSERT INTO billed_requests (tenant_id, request_id, cost_micros)
    -- In an order, so that two batches never wait for each other.
    SELECT tenant_id, request_id, 0 FROM hit ORDER BY request_id, tenant_id
    ON CONFLICT DO NOTHING
    RETURNING tenant_id, request_id
),
fresh AS MATERIALIZED (
    SELECT DISTINCT ON (request_id, tenant_id) hit.* FROM hit JOIN billed USING (tenant_id, request_id)
    ORDER BY request_id, tenant_id, ordinal
),
added AS (
    INSERT INTO ledger (tenant_id, request_id, key_id, model, deployment, provider, cache_status, input_tokens,
        cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens, image_count, estimated, cost_micros,
        saved_micros, currency_code, finish_reason, create_time, team_id, tags)
    SELECT fresh.tenant_id, request_id, key_id, model, deployment, provider, cache_status, input_tokens,
        cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens, image_count, estimated, 0,
        saved_micros, currency_code, finish_reason, least(coalesce(fresh.create_time, now()), now()),
        coalesce(keys.team_id, ''), coalesce(keys.tags, '{}')
    FROM fresh LEFT JOIN keys ON keys.id = fresh.key_id AND keys.tenant_id = fresh.tenant_id
    ORDER BY ordinal
)
SELECT cache_status, model, currency_code, count(*) AS request_count, sum(saved_micros)::bigint AS saved_micros
FROM fresh GROUP BY cache_status, model, currency_code
""")

_TOKENS = (
    ledger.c.input_tokens
    + ledger.c.cached_input_tokens
    + ledger.c.cache_write_tokens
    + ledger.c.output_tokens
    + ledger.c.reasoning_tokens
)
_CACHED = ledger.c.cache_status.in_(("exact", "semantic"))
_SUMS = (
    func.coalesce(ledger.c.provider, ledger.c.model, "").label("name"),
    func.count().filter(~ledger.c.correction).label("request_count"),
    func.count().filter(_CACHED).label("cached_count"),
    func.coalesce(func.sum(_TOKENS).filter(~_CACHED), 0).label("token_count"),
    func.coalesce(func.sum(ledger.c.cost_micros), 0).label("cost_micros"),
    func.coalesce(func.sum(ledger.c.saved_micros), 0).label("saved_micros"),
)
_LEVEL = func.grouping(ledger.c.provider, ledger.c.model)
"""A bit is set for each of the two columns that a line was summed over."""
_BY_PROVIDER, _BY_MODEL, _EVERYTHING = 0b01, 0b10, 0b11


class LedgerStore:
    """The ledger in Postgres. Rows are only ever added: a trigger refuses anything else."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(self, hits: Sequence[PricedHit]) -> list[Recorded]:
        """Add cache hits, those with a known request id left out, and return sums of the others."""
        rows = orjson.dumps([_parameters(*numbered) for numbered in enumerate(hits)]).decode()
        return [Recorded(**row) for row in await self._database.fetch("record_usage", _RECORD, {"hits": rows})]

    async def page(self, tenant_id: str, which: LedgerFilter, *, most: int, before: Position | None) -> list[LedgerRow]:
        """At most `most` rows of a tenant, newest first, older than `before`."""
        statement = select(ledger).where(ledger.c.tenant_id == tenant_id, *_chosen(which))
        if before:
            statement = statement.where(tuple_(ledger.c.create_time, ledger.c.id) < (before.time, before.id))
        statement = statement.order_by(ledger.c.create_time.desc(), ledger.c.id.desc()).limit(most)
        return [ledger_row(row) for row in await self._database.fetch("list_usage", statement)]

    async def summary(self, tenant_id: str, start: datetime, end: datetime) -> UsageSummary:
        """Sums over rows made from `start` up to `end`."""
        statement = (
            select(_LEVEL.label("level"), *_SUMS)
            .where(ledger.c.tenant_id == tenant_id, ledger.c.create_time >= start, ledger.c.create_time < end)
            .group_by(func.grouping_sets(tuple_(ledger.c.provider), tuple_(ledger.c.model), tuple_()))
            .order_by(text("cost_micros DESC, name"))
        )
        lines = [(row["level"], _total(row)) for row in await self._database.fetch("usage_summary", statement)]
        return UsageSummary(
            total=next(total for level, total in lines if level == _EVERYTHING),
            by_provider=[total for level, total in lines if level == _BY_PROVIDER],
            by_model=[total for level, total in lines if level == _BY_MODEL],
        )


def _chosen(which: LedgerFilter) -> list[ColumnElement[bool]]:
    columns = ("team_id", "key_id", "model", "deployment")
    same = [ledger.c[name] == getattr(which, name) for name in columns if getattr(which, name)]
    since = [ledger.c.create_time >= which.start] if which.start else []
    until = [ledger.c.create_time < which.end] if which.end else []
    return [*same, *since, *until]


def _parameters(ordinal: int, priced: PricedHit) -> dict[str, Any]:
    hit = priced.hit
    return {
        "ordinal": ordinal,
        "tenant_id": hit.tenant_id,
        "request_id": hit.request_id,
        "key_id": hit.key_id,
        "model": hit.model,
        "deployment": hit.deployment,
        "provider": hit.provider,
        "cache_status": hit.cache_status,
        "input_tokens": hit.usage.input_tokens,
        "cached_input_tokens": hit.usage.cached_input_tokens,
        "cache_write_tokens": hit.usage.cache_write_tokens,
        "output_tokens": hit.usage.output_tokens,
        "reasoning_tokens": hit.usage.reasoning_tokens,
        "image_count": hit.usage.image_count,
        "estimated": hit.usage.estimated,
        "saved_micros": priced.saved_micros,
        "currency_code": priced.currency_code,
        "finish_reason": hit.finish_reason,
        "create_time": hit.create_time,
    }


def ledger_row(row: RowMapping) -> LedgerRow:
    """A row as it is read."""
    usage = Usage(
        input_tokens=row["input_tokens"],
        cached_input_tokens=row["cached_input_tokens"],
        cache_write_tokens=row["cache_write_tokens"],
        output_tokens=row["output_tokens"],
        reasoning_tokens=row["reasoning_tokens"],
        image_count=row["image_count"],
        estimated=row["estimated"],
    )
    return LedgerRow(
        id=row["id"],
        request_id=row["request_id"],
        tenant_id=row["tenant_id"],
        key_id=row["key_id"],
        model=row["model"],
        deployment=row["deployment"],
        provider=row["provider"],
        cache_status=row["cache_status"],
        usage=usage,
        cost_micros=row["cost_micros"],
        saved_micros=row["saved_micros"],
        currency_code=row["currency_code"],
        finish_reason=row["finish_reason"],
        create_time=row["create_time"],
        team_id=row["team_id"],
        tags=tuple(row["tags"]),
        overrun_micros=row["overrun_micros"],
        priced_at=row["priced_at"] or row["create_time"],
        margin_micros=row["margin_micros"],
        margin_points=row["margin_points"],
        correction=row["correction"],
        stop=row["stop"],
        most_micros=row["most_micros"],
    )


def _total(row: RowMapping) -> UsageTotal:
    return UsageTotal(
        name=row["name"],
        request_count=row["request_count"],
        cached_count=row["cached_count"],
        token_count=int(row["token_count"]),
        cost_micros=int(row["cost_micros"]),
        saved_micros=int(row["saved_micros"]),
    )
