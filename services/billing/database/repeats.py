"""Requests that changed something, kept for as long as they may be sent again."""

from __future__ import annotations

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from meshkit.errors import RequestConflict
from services.billing.database.engine import Database
from services.billing.database.schema import change_requests
from services.billing.once import Once

KEPT_HOURS = 24

_SWEEP = text(f"""
DELETE FROM change_requests WHERE (caller_id, request_id) IN (
    SELECT caller_id, request_id FROM change_requests
    WHERE create_time < now() - interval '{KEPT_HOURS} hours' LIMIT 5000)
""")  # noqa: S608 - made of constants


async def done_before(connection: AsyncConnection, once: Once | None, resource: str) -> str | None:
    """The id of what a request changed when it came first; None when it comes now, and is to change `resource`.

    What is noted here stands and falls with the transaction. Of two that come at once the second waits for the first.

    Raises:
        RequestConflict: If the request that came first asked for something else.
    """
    if once is None:
        return None
    row = {
        "caller_id": once.caller_id,
        "request_id": once.request_id,
        "fingerprint": once.fingerprint,
        "resource": resource,
    }
    noted = insert(change_requests).values(row).on_conflict_do_nothing().returning(change_requests.c.request_id)
    if (await connection.execute(noted)).one_or_none():
        return None
    known = select(change_requests).where(
        change_requests.c.caller_id == once.caller_id, change_requests.c.request_id == once.request_id
    )
    first = (await connection.execute(known)).mappings().one()
    if first["fingerprint"] != once.fingerprint:
        raise RequestConflict(
            f"The request_id {once.request_id!r} was used for another request: take a new one.",
            request_id=once.request_id,
        )
    return str(first["resource"])


class RepeatStore:
    """Forgets requests that are too old to be sent again."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def sweep(self) -> None:
        """Forget the oldest; a bounded number at a time."""
        await self._database.fetch("sweep_repeats", _SWEEP)
