"""Signs virtual keys: JWTs (EdDSA over Ed25519) that anyone can verify with the published key set."""

from __future__ import annotations

import os
import secrets
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import orjson
from joserfc import jwt
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import OKPKey

from services.billing.tenants.tenant import Key

ISSUER = "llmmesh"
AUDIENCE = "llmmesh"
ALGORITHM = "EdDSA"


class SigningKey:
    """The private key, and everything done with it."""

    def __init__(self, key: OKPKey) -> None:
        key.ensure_kid()
        self._key = key

    @classmethod
    def from_file(cls, path: Path) -> SigningKey:
        """Read the private JWK at `path`; make one, readable by its owner alone, when there is no file.

        Processes that make it at the same time end up with the same key.

        Raises:
            ValueError: If the file holds anything but a private Ed25519 JWK.
        """
        if not path.exists():
            _create(path)
        try:
            key = OKPKey.import_key(orjson.loads(path.read_bytes()))
        except (JoseError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is not a JWK (RFC 8037)") from error
        if not key.is_private or key.curve_name != "Ed25519":
            raise ValueError(f"{path} is not a private Ed25519 key")
        return cls(key)

    def jwks(self) -> bytes:
        """The public key as a JSON Web Key Set (RFC 7517)."""
        public = {**self._key.as_dict(private=False), "use": "sig", "alg": ALGORITHM}
        return orjson.dumps({"keys": [public]})

    def sign(self, key: Key) -> str:
        """The bearer token of a key."""
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": key.id,
            "jti": key.id,
            "tenant": key.tenant_id,
            "roles": " ".join(key.roles),
            "iat": _seconds(key.create_time),
            "exp": _seconds(key.expire_time),
        }
        with _eddsa_by_that_name():
            return jwt.encode({"alg": ALGORITHM, "kid": self._key.kid}, claims, self._key, algorithms=[ALGORITHM])

    def key_id_of(self, token: str) -> str | None:
        """The id of the key a token stands for; None when this key did not sign it."""
        try:
            with _eddsa_by_that_name():
                claims = jwt.decode(token, self._key, algorithms=[ALGORITHM]).claims
        except (JoseError, ValueError):
            return None
        return str(claims.get("jti", "")) or None


def new_key_id() -> str:
    """An id nobody can guess."""
    return f"key-{secrets.token_hex(12)}"


def _create(path: Path) -> None:
    """Write a new key under its name in one step: whoever is second keeps the first one's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    draft.touch(mode=0o600)
    try:
        draft.write_bytes(orjson.dumps(OKPKey.generate_key("Ed25519").as_dict(private=True)))
        os.link(draft, path)
    except FileExistsError:
        return
    finally:
        draft.unlink()


def _seconds(time: datetime) -> int:
    return int(time.timestamp())


@contextmanager
def _eddsa_by_that_name() -> Iterator[None]:
    # RFC 9864 calls the algorithm Ed25519; Envoy's jwt_authn knows it by the older name alone.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)
        yield
