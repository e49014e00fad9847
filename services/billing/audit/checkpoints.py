"""Checkpoints: signed statements of what a chain held at one moment.

Each is a JWS (RFC 7515) over canonical JSON: how many records, the Merkle root over their hashes, the hash of the last,
and the hash of the checkpoint before. Whoever kept one can tell later whether anything before it was touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, OKPKey

from services.billing.audit.chain import NOTHING, canonical, sha256

ALGORITHM = "Ed25519"
KIND = "llmmesh-checkpoint"
VERSION = 1


class CheckpointInvalid(Exception):
    """No checkpoint, or none signed by a known key; the message says why."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a tenant's chain held."""

    tenant_id: str
    size: int
    root: str
    head: str
    previous: str
    """SHA-256 of the JWS of the checkpoint before."""
    create_time: datetime
    jws: str

    @property
    def sha256(self) -> str:
        """What the next checkpoint names it by."""
        return sha256(self.jws.encode())


class Seal:
    """The private keys of a file: the first signs checkpoints, all are published."""

    def __init__(self, keys: Sequence[OKPKey]) -> None:
        self._key = keys[0]
        self._published = keys

    def keys(self) -> bytes:
        """The public keys as a JSON Web Key Set (RFC 7517), those that signed once or will among them."""
        return public_keys(self._published)

    def sign(self, *, tenant_id: str, size: int, root: str, head: str, after: Checkpoint | None) -> Checkpoint:
        """State, now, what a chain holds."""
        now = datetime.now(UTC)
        previous = after.sha256 if after else NOTHING
        statement = {
            "v": VERSION,
            "tenant_id": tenant_id,
            "size": size,
            "root": root,
            "head": head,
            "previous": previous,
            "create_time": now.isoformat(),
        }
        header = {"alg": ALGORITHM, "kid": self._key.kid, "typ": KIND}
        signed = jws.serialize_compact(header, canonical(statement), self._key, algorithms=[ALGORITHM])
        return Checkpoint(tenant_id, size, root, head, previous, now, signed)


def public_keys(keys: Sequence[OKPKey]) -> bytes:
    """The public halves as a JSON Web Key Set."""
    for key in keys:
        key.ensure_kid()
    return orjson.dumps(
        {"keys": [{**key.as_dict(private=False), "use": "sig", "alg": ALGORITHM, "kid": key.kid} for key in keys]}
    )


def read_checkpoint(signed: str, keys: KeySet) -> Checkpoint:
    """A checkpoint whose signature was checked.

    Raises:
        CheckpointInvalid: If none of the keys signed it, or it is no checkpoint.
    """
    try:
        statement = jws.deserialize_compact(signed, keys, algorithms=[ALGORITHM])
    except (JoseError, ValueError) as error:
        raise CheckpointInvalid(f"its signature is by none of the given keys ({error})") from error
    if statement.headers().get("typ") != KIND:
        raise CheckpointInvalid("what was signed is no checkpoint")
    return _checkpoint(statement.payload, signed)


def stated(signed: str) -> Checkpoint:
    """What a checkpoint says; its signature is not checked.

    Raises:
        CheckpointInvalid: If it cannot be read.
    """
    try:
        return _checkpoint(jws.extract_compact(signed.encode()).payload, signed)
    except (AttributeError, JoseError, ValueError, KeyError, TypeError) as error:
        raise CheckpointInvalid(f"it cannot be read ({type(error).__name__})") from error


def _checkpoint(payload: bytes, signed: str) -> Checkpoint:
    said = orjson.loads(payload)
    return Checkpoint(
        tenant_id=said["tenant_id"],
        size=int(said["size"]),
        root=said["root"],
        head=said["head"],
        previous=said["previous"],
        create_time=datetime.fromisoformat(said["create_time"]),
        jws=signed,
    )
