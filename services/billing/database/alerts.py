"""Alerts in Postgres: a table that anybody adds rows to, and what became of each in each channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import orjson
from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing.alerts.alert import Alert, Delivery
from services.billing.alerts.channels import Channel
from services.billing.database.engine import Database

CLAIM_SECONDS = 60.0
"""How long a process has a delivery to itself: one that died while carrying gives it back."""
PLANNED_AT_ONCE = 500

_ADD = text("""
INSERT INTO alerts (kind, tenant_id, severity, title, text, fingerprint)
SELECT kind, tenant_id, severity, title, text, fingerprint FROM jsonb_to_recordset(CAST(:alerts AS jsonb))
    AS alert(kind text, tenant_id text, severity text, title text, text text, fingerprint text)
""")
_TAKE = text("""
UPDATE alerts SET planned = true WHERE id IN (
    SELECT id FROM alerts WHERE NOT planned ORDER BY id LIMIT :most FOR UPDATE SKIP LOCKED)
RETURNING id, kind, tenant_id, severity, title, text, fingerprint
""")
_PLAN = text("""
WITH repeated AS (
    UPDATE alert_deliveries SET repeats = repeats + 1
    WHERE id = (
        SELECT max(id) FROM alert_deliveries WHERE channel = :channel AND fingerprint = :fingerprint
            AND (sent_time IS NULL OR sent_time > now() - make_interval(secs => :quiet_seconds)))
    RETURNING id
)
INSERT INTO alert_deliveries (alert_id, channel, fingerprint)
SELECT :alert_id, :channel, :fingerprint WHERE NOT EXISTS (SELECT FROM repeated)
""")
_CLAIM = text("""
WITH claimed AS (
    UPDATE alert_deliveries SET attempts = attempts + 1, next_time = now() + make_interval(secs => :seconds)
    WHERE id IN (
        SELECT id FROM alert_deliveries WHERE channel = :channel AND sent_time IS NULL AND next_time <= now()
        ORDER BY id LIMIT :most FOR UPDATE SKIP LOCKED)
    RETURNING *
)
SELECT claimed.id, claimed.repeats, claimed.attempts, alert.kind, alert.tenant_id, alert.severity, alert.title,
    alert.text, alert.fingerprint, alert.create_time
FROM claimed JOIN alerts AS alert ON alert.id = claimed.alert_id ORDER BY claimed.id
""")
_SENT = text("UPDATE alert_deliveries SET sent_time = now() WHERE id = ANY(:ids)")
_AGAIN = text("UPDATE alert_deliveries SET next_time = now() + make_interval(secs => :seconds) WHERE id = ANY(:ids)")
_SWEEP = text("""
DELETE FROM alerts WHERE id IN (
    SELECT id FROM alerts WHERE create_time < now() - make_interval(days => :days) ORDER BY create_time LIMIT 5000)
""")


async def add_alerts(connection: AsyncConnection, alerts: Sequence[Alert]) -> None:
    """Raise alerts, in the caller's transaction. SQL may as well insert into `alerts` by itself."""
    await connection.execute(_ADD, {"alerts": orjson.dumps([asdict(alert) for alert in alerts]).decode()})


class AlertStore:
    """What the dispatcher works on."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, alerts: Sequence[Alert]) -> None:
        """Raise alerts in a transaction of their own."""
        async with self._database.transaction("raise_alerts") as connection:
            await add_alerts(connection, alerts)

    async def plan(self, channels: Sequence[Channel]) -> None:
        """Order new alerts to be carried; one that was carried a moment ago is only counted."""
        async with self._database.transaction("plan_alerts") as connection:
            new = (await connection.execute(_TAKE, {"most": PLANNED_AT_ONCE})).mappings().all()
            for row in sorted(new, key=lambda row: int(row["id"])):
                alert = _alert(row)
                for channel in channels:
                    if channel.carries(alert):
                        await connection.execute(_PLAN, _order(row["id"], alert, channel))

    async def claim(self, channel: str, *, most: int) -> list[Delivery]:
        """At most `most` deliveries that are due, the oldest first; for a minute nobody else gets them."""
        wanted = {"channel": channel, "most": most, "seconds": CLAIM_SECONDS}
        return [_delivery(row) for row in await self._database.fetch("claim_alerts", _CLAIM, wanted)]

    async def sent(self, ids: Sequence[int]) -> None:
        """Note that they were carried."""
        await self._database.fetch("alerts_sent", _SENT, {"ids": list(ids)})

    async def again(self, ids: Sequence[int], seconds: float) -> None:
        """Have them carried again after a while."""
        await self._database.fetch("alerts_again", _AGAIN, {"ids": list(ids), "seconds": seconds})

    async def sweep(self, days: int) -> None:
        """Let go of alerts that are older, carried or not; a bounded number at a time."""
        await self._database.fetch("sweep_alerts", _SWEEP, {"days": days})


def _order(alert_id: int, alert: Alert, channel: Channel) -> dict[str, object]:
    return {
        "alert_id": alert_id,
        "channel": channel.name,
        "fingerprint": alert.fingerprint,
        "quiet_seconds": channel.quiet_seconds,
    }


def _alert(row: RowMapping) -> Alert:
    return Alert(row["kind"], row["tenant_id"], row["severity"], row["title"], row["text"], row["fingerprint"])


def _delivery(row: RowMapping) -> Delivery:
    return Delivery(row["id"], _alert(row), row["create_time"], row["repeats"], row["attempts"])
