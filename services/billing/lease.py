"""What a reservation's id says."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any

import orjson

from services.billing.margins import LEAST_POINTS, MOST_POINTS
from services.billing.money import MOST_MICROS

MOST_IMAGES = 10_000
_ADDED: tuple[Any, ...] = (0, None, 0)
"""What the last fields are in an id that was given out before there were such."""


@dataclass(frozen=True, slots=True)
class Lease:
    """What a reservation's id says: all that settling needs.

    Settling therefore reads nothing first, and bills also when the row is gone: lapsed, or lost in a crash of the
    database, for which reservations are not flushed to disk.
    """

    tenant_id: str
    key_id: str
    request_id: str
    model: str
    currency_code: str
    priced_at: datetime
    """Time whose prices hold for this request."""
    team_id: str = ""
    image_count: int = 0
    max_cost_micros: int | None = None
    """The most that may be billed; None when nobody says."""
    margin_points: int = 0
    """The tenant's margin then, in basis points."""

    def to_id(self) -> str:
        """Write it as an opaque id."""
        parts = (
            self.tenant_id, self.key_id, self.request_id, self.model, self.currency_code, self.priced_at, self.team_id,
            self.image_count, self.max_cost_micros, self.margin_points,
        )  # fmt: skip
        return urlsafe_b64encode(orjson.dumps(parts)).decode().rstrip("=")

    def of_part(self, part: str) -> Lease:
        """The lease of a part of the request that is billed by itself; of all of it when `part` is empty."""
        return replace(self, request_id=f"{self.request_id}:{part}") if part else self

    @classmethod
    def from_id(cls, reservation_id: str) -> Lease:
        """Read an id that `to_id` wrote.

        Raises:
            ValueError: If it is no such id.
        """
        padding = "=" * (-len(reservation_id) % 4)
        try:
            parts: list[Any] = orjson.loads(urlsafe_b64decode(reservation_id + padding))
            missing = len(fields(cls)) - len(parts)
            *texts, image_count, max_cost, margin_points = (*parts, *_ADDED[len(_ADDED) - missing :])
            if not all(part.isprintable() for part in texts) or not 0 <= image_count <= MOST_IMAGES:
                raise ValueError(parts)
            if not LEAST_POINTS <= margin_points <= MOST_POINTS:
                raise ValueError(parts)
            if max_cost is not None and not 0 <= max_cost <= MOST_MICROS:
                raise ValueError(parts)
            tenant_id, key_id, request_id, model, currency_code, priced_at, team_id = texts
            time = datetime.fromisoformat(priced_at).astimezone(UTC)
        except (ValueError, TypeError, AttributeError, OverflowError):
            raise ValueError("not the id of a reservation") from None
        return cls(
            tenant_id, key_id, request_id, model, currency_code, time, team_id, image_count, max_cost, margin_points
        )
