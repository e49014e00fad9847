"""An OpenID Connect issuer: real HTTP, real keys, and tokens that say what a test wants."""

from __future__ import annotations

import json
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

ISSUER = "https://id.example.com/realms/main"
AUDIENCE = "llmmesh-edge"


@dataclass
class ScriptedIssuer:
    """Publishes its keys, signs with the newest."""

    keys: list[RSAKey] = field(default_factory=list)
    fetches: int = 0
    port: int = 0

    def __post_init__(self) -> None:
        self.new_key()

    def new_key(self) -> RSAKey:
        """Add a key, which signs from now on."""
        key = RSAKey.generate_key(2048, parameters={"kid": f"k{time.monotonic_ns()}", "use": "sig", "alg": "RS256"})
        self.keys.append(key)
        return key

    @property
    def jwks_uri(self) -> str:
        """Where the keys are."""
        return f"http://127.0.0.1:{self.port}/jwks"

    def token(self, key: RSAKey | None = None, *, without: Sequence[str] = (), **claims: Any) -> str:
        """An access token of user ada, unless `claims` say otherwise."""
        now = int(time.time())
        said = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "iat": now, "exp": now + 600, **claims}
        for name in without:
            del said[name]
        signer = key or self.keys[-1]
        return str(jwt.encode({"alg": "RS256", "kid": signer.kid}, said, signer))

    def unsigned(self, **claims: Any) -> str:
        """The same token with algorithm none, and with nothing where the signature was."""
        _, body, _ = self.token(**claims).split(".")
        head = urlsafe_b64encode(json.dumps({"alg": "none", "typ": "JWT"}).encode()).decode().rstrip("=")
        return f"{head}.{body}."

    async def publish(self, request: web.Request) -> web.Response:
        """Answer with the public keys."""
        self.fetches += 1
        return web.json_response(KeySet(list(self.keys)).as_dict(private=False))


@asynccontextmanager
async def scripted_issuer() -> AsyncIterator[ScriptedIssuer]:
    """Serve for the block."""
    issuer = ScriptedIssuer()
    app = web.Application()
    app.router.add_get("/jwks", issuer.publish)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    issuer.port = runner.addresses[0][1]
    try:
        yield issuer
    finally:
        await runner.cleanup()
