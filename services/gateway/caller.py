"""Who asks."""

from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

from meshkit.identity import Identity, current_identity, enter_identity

LONGEST_REQUEST_ID = 200


def identified() -> Identity:
    """The caller of the RPC being served, with a request id; what is called from here on carries it too."""
    identity = current_identity()
    if not 0 < len(identity.request_id) <= LONGEST_REQUEST_ID:
        identity = replace(identity, request_id=str(uuid4()))
        enter_identity(identity)
    return identity
