"""Signs virtual keys: JWTs (EdDSA over Ed25519) that anyone can verify with the published key set."""

from __future__ import annotations

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

from services.billing.key_file import signing_key_from
from services.billing.tenants.tenant import Key

ISSUER = "llmmesh"
AUDIENCE = "llmmesh"
ALGORITHM = "EdDSA"


class SigningKey:
    """The private key, and everything done with it."""

    def __init__(self, key: OKPKey) -> None:
        self._key = key

    @classmethod
    def from_file(cls, path: Path) -> SigningKey:
        """Read the private JWK at `path`; make one when there is no file.

        Raises:
            ValueError: If the file holds anything but a private Ed25519 JWK.
        """
        return cls(signing_key_from(path))

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


def _seconds(time: datetime) -> int:
    return int(time.timestamp())


@contextmanager
def _eddsa_by_that_name() -> Iterator[None]:
    # RFC 9864 calls the algorithm Ed25519; Envoy's jwt_authn knows it by the older name alone.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)
        yield
