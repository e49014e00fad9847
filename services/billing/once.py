"""Changes that happen once, however often they are asked for (AIP-155)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from uuid import UUID

from google.protobuf.message import Message

from meshkit.errors import FieldInvalid
from meshkit.identity import current_identity


@dataclass(frozen=True, slots=True)
class Once:
    """What tells a request that is sent again from a new one."""

    caller_id: str
    """Tenant of whoever asks: nobody meets another's request ids."""
    request_id: str
    fingerprint: str
    """Of everything the request asks for."""

    @classmethod
    def of(cls, request: Message, request_id: str) -> Once | None:
        """Read a request; None for one that has no id, and happens each time.

        Raises:
            FieldInvalid: If the id is no UUID.
        """
        if not request_id:
            return None
        try:
            canonical = str(UUID(request_id))
        except ValueError:
            raise FieldInvalid("request_id", "must be a UUID") from None
        asked = type(request).DESCRIPTOR.full_name.encode() + request.SerializeToString(deterministic=True)
        return cls(current_identity().tenant_id, canonical, hashlib.sha256(asked).hexdigest())
