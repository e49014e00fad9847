"""Rows that their tenants have kept for long enough: found without reading those that stay."""

from __future__ import annotations


def old_rows(table: str) -> str:
    """Places of at most `:most` rows that are older than their tenant's policy says, `:days` when it says nothing.

    Each tenant that has rows costs two looks into an index of tenant and time. There may be no such tenant any more.
    """
    return f"""
    WITH RECURSIVE named AS (
        (SELECT tenant_id FROM {table} ORDER BY tenant_id LIMIT 1)
        UNION ALL
        SELECT (SELECT tenant_id FROM {table} WHERE tenant_id > named.tenant_id ORDER BY tenant_id LIMIT 1)
        FROM named WHERE named.tenant_id IS NOT NULL
    )
    SELECT aged.place FROM named LEFT JOIN tenants ON tenants.id = named.tenant_id
    CROSS JOIN LATERAL (
        SELECT each.ctid AS place FROM {table} AS each
        WHERE each.tenant_id = named.tenant_id
            AND each.create_time < now() - make_interval(days => coalesce(nullif(violation_days, 0), :days))
        ORDER BY each.create_time LIMIT :most
    ) AS aged
    LIMIT :most
    """  # noqa: S608 - made of constants
