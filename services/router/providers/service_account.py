"""The key of a service account of Yandex Cloud, exchanged for IAM tokens: each time a claim is signed with it."""

from __future__ import annotations

import asyncio
import time

import orjson
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from services.router.providers.credentials import Token
from services.router.providers.http import Wire
from services.router.providers.issuers import Issue, token_in
from services.router.providers.provider import FailureKind, ProviderFailure

ALGORITHM = "PS256"
CLAIM_SECONDS = 600
"""How long a claim may be exchanged; at most an hour."""


def account_issuer(wire: Wire, url: str, key: str) -> Issue:
    """Yandex Cloud's; `key` is the JSON file its tools write of an authorized key."""

    async def issue() -> Token:
        # Reading an RSA key checks it, which takes some 30 ms.
        body = {"jwt": await asyncio.to_thread(_claim, key, url)}
        return token_in(await wire.fetched("POST", url, {"content-type": "application/json"}, body))

    return issue


def _claim(key: str, audience: str) -> str:
    now = int(time.time())
    try:
        written = orjson.loads(key)
        header = {"typ": "JWT", "alg": ALGORITHM, "kid": written["id"]}
        claims = {"iss": written["service_account_id"], "aud": audience, "iat": now, "exp": now + CLAIM_SECONDS}
        return jwt.encode(header, claims, RSAKey.import_key(written["private_key"]), algorithms=[ALGORITHM])
    except (JoseError, KeyError, TypeError, ValueError):
        # Without the cause: it may quote the key.
        raise ProviderFailure(FailureKind.CREDENTIAL, "the key of the service account cannot be read") from None
