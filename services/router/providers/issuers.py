"""Who issues tokens, and how each is asked."""

from __future__ import annotations

import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any

from services.router.endpoints import CloudRuDeployment, GigaChatDeployment
from services.router.providers.credentials import Token
from services.router.providers.http import Wire
from services.router.providers.provider import FailureKind, ProviderFailure

LEAST_MILLISECONDS = 1e11
"""Greater Unix times are in milliseconds: as seconds they would lie beyond the year 5000."""
USUAL_SECONDS = 30 * 60.0
"""Life of a token whose issuer does not tell."""

Issue = Callable[[], Awaitable[Token]]


def gigachat_issuer(wire: Wire, deployment: GigaChatDeployment, key: str) -> Issue:
    """GigaChat's: OAuth with the authorization key, each request under an id of its own."""

    async def issue() -> Token:
        headers = {
            "authorization": f"Basic {key}",
            "rquid": str(uuid.uuid4()),
            "accept": "application/json",
            "content-type": "application/x-www-form-urlencoded",
        }
        body = f"scope={deployment.scope}".encode()
        return token_in(await wire.fetched("POST", deployment.token_url, headers, body))

    return issue


def cloudru_issuer(wire: Wire, deployment: CloudRuDeployment, key_id: str, secret: str) -> Issue:
    """Cloud.ru's: the id and the secret of a service account's key."""

    async def issue() -> Token:
        body = {"keyId": key_id, "secret": secret}
        return token_in(await wire.fetched("POST", deployment.token_url, {"content-type": "application/json"}, body))

    return issue


def metadata_issuer(wire: Wire, url: str) -> Issue:
    """The metadata service of a machine in Yandex Cloud."""

    async def issue() -> Token:
        return token_in(await wire.fetched("GET", url, {"metadata-flavor": "Google"}, None))

    return issue


def token_in(answer: Mapping[str, Any]) -> Token:
    """The token of an issuer's answer, whichever way it is written.

    Raises:
        ProviderFailure: If there is none.
    """
    value = answer.get("access_token") or answer.get("tok") or answer.get("iamToken")
    if not isinstance(value, str) or not value.isprintable():
        raise ProviderFailure(FailureKind.MALFORMED, "the issuer sent no token")
    return Token(value, _end(answer))


def _end(answer: Mapping[str, Any]) -> float:
    ends, lasts = answer.get("expires_at", answer.get("exp")), answer.get("expires_in")
    if isinstance(ends, int | float):
        return ends / 1000 if ends >= LEAST_MILLISECONDS else float(ends)
    if isinstance(written := answer.get("expiresAt"), str):
        return _instant(written)
    return time.time() + (lasts if isinstance(lasts, int | float) else USUAL_SECONDS)


def _instant(written: str) -> float:
    try:
        return datetime.fromisoformat(written).timestamp()
    except ValueError:
        raise ProviderFailure(FailureKind.MALFORMED, "the issuer's token ends at no time") from None
