"""Signs virtual keys: JWTs (EdDSA over Ed25519) that anyone can verify with the published key set."""

from __future__ import annotations

import secrets
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import orjson
from joserfc import jwt
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import KeySet, OKPKey

from meshkit.identity import BOUND_KEY
from meshkit.log import get_logger
from services.billing.key_file import signing_keys_from
from services.billing.tenants.tenant import Key

ISSUER = "llmmesh"
AUDIENCE = "llmmesh"
ALGORITHM = "EdDSA"

log = get_logger()


class SigningKey:
    """The private keys of a file, and everything done with them: the first signs, all are published.

    The file is read again when it has changed, so that a rotation needs no restart.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_at = self._changed_at()
        self._keys = signing_keys_from(path)

    @classmethod
    def from_file(cls, path: Path) -> SigningKey:
        """Read the private JWK, or JWK Set, at `path`; make a key when there is no file.

        Raises:
            ValueError: If the file holds anything but private Ed25519 JWKs.
        """
        signing_keys_from(path)
        return cls(path)

    def jwks(self) -> bytes:
        """The public keys as a JSON Web Key Set (RFC 7517)."""
        public = [{**key.as_dict(private=False), "use": "sig", "alg": ALGORITHM} for key in self._current()]
        return orjson.dumps({"keys": public})

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
        signer = self._current()[0]
        with _eddsa_by_that_name():
            return jwt.encode({"alg": ALGORITHM, "kid": signer.kid}, claims, signer, algorithms=[ALGORITHM])

    def key_id_of(self, token: str) -> str | None:
        """The id of the key a token stands for; None when none of these keys signed it."""
        try:
            with _eddsa_by_that_name():
                claims = jwt.decode(token, KeySet(list(self._current())), algorithms=[ALGORITHM]).claims
        except (JoseError, ValueError):
            return None
        return str(claims.get("jti", "")) or None

    def _current(self) -> Sequence[OKPKey]:
        changed_at = self._changed_at()
        if changed_at != self._read_at:
            try:
                self._keys, self._read_at = signing_keys_from(self._path), changed_at
            except ValueError as error:
                # Half an edit is no reason to refuse every key there is.
                log.error("signing_keys_unreadable", error=str(error))
        return self._keys

    def _changed_at(self) -> tuple[int, int]:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return self._read_at
        return status.st_mtime_ns, status.st_ino


def new_key_id(*, bound: bool) -> str:
    """An id nobody can guess, which says whether there is more to know of the key than its token holds."""
    return f"{BOUND_KEY if bound else 'key-'}{secrets.token_hex(12)}"


def _seconds(time: datetime) -> int:
    return int(time.timestamp())


@contextmanager
def _eddsa_by_that_name() -> Iterator[None]:
    # RFC 9864 calls the algorithm Ed25519; Envoy's jwt_authn knows it by the older name alone.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)
        yield
