"""Checkpoints: signed statements of what a chain held at one moment.

Each is a JWS (RFC 7515) over canonical JSON: how many records, the Merkle root over their hashes, the hash of the last,
and the hash of the checkpoint before. Whoever kept one can tell later whether anything before it was touched.
"""

from __future__ import annotations

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
    """No checkpoint signed by a known key; the message says why."""


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
    """The private key that signs checkpoints."""

    def __init__(self, key: OKPKey) -> None:
        self._key = key

    def keys(self) -> bytes:
        """The public key as a JSON Web Key Set (RFC 7517)."""
        return public_keys([self._key])

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


def public_keys(keys: list[OKPKey]) -> bytes:
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
    """What a checkpoint of our own database says; its signature is not checked."""
    return _checkpoint(jws.extract_compact(signed.encode()).payload, signed)


def _checkpoint(payload: bytes, signed: str) -> Checkpoint:
    said = orjson.loads(payload)
    return Checkpoint(
        tenant_id=said["tenant_id"],
        size=said["size"],
        root=said["root"],
        head=said["head"],
        previous=said["previous"],
        create_time=datetime.fromisoformat(said["create_time"]),
        jws=signed,
    )
