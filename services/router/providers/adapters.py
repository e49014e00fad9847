"""Which adapter speaks to which kind of deployment: a further kind is one more case here."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, TypeVar

import aiohttp

from services.router.deployment import Deployment, LocalDeployment
from services.router.endpoints import (
    CloudRuDeployment,
    GigaChatDeployment,
    HttpDeployment,
    LiteLLMDeployment,
    OpenAIDeployment,
    YandexDeployment,
)
from services.router.providers.credentials import Credential, FixedCredential, RenewedCredential
from services.router.providers.dispatch import current_dispatch
from services.router.providers.gate import Gate
from services.router.providers.gigachat import GigaChatProvider
from services.router.providers.http import Endpoint, Wire
from services.router.providers.issuers import Issue, cloudru_issuer, gigachat_issuer, metadata_issuer
from services.router.providers.local import LocalProvider
from services.router.providers.openai import OpenAIProvider
from services.router.providers.profiles import PROFILES
from services.router.providers.provider import Provider
from services.router.providers.yandex import YandexProvider
from services.router.references import resolved

if TYPE_CHECKING:
    from llmmesh.inference.v1.inference_pb2_grpc import InferenceServiceAsyncStub

Shared = TypeVar("Shared")

KEPT_PRIVATE = {"x-data-logging-enabled": "false"}


@dataclass(slots=True, eq=False)
class _Line:
    """A provider with the connections it holds."""

    deployment: Deployment
    provider: Provider
    http: aiohttp.ClientSession
    fleets: int = 0
    """Routes files that still need it."""

    def serves(self, deployment: Deployment) -> bool:
        """Whether it was made for this very entry."""
        return self.deployment.name == deployment.name and self.deployment == deployment


class Providers:
    """Providers by deployment; one whose entry stays the same from file to file keeps its connections."""

    def __init__(self, adapters: Adapters, most_connections: int) -> None:
        self._adapters = adapters
        self._most_connections = most_connections
        self._lines: list[_Line] = []

    def open(self, deployments: Sequence[Deployment]) -> dict[str, Provider]:
        """The provider of each deployment, by its name. Each needs to be released as often as it was opened."""
        opened = {}
        for deployment in deployments:
            line = next((line for line in self._lines if line.serves(deployment)), None) or self._line(deployment)
            line.fleets += 1
            opened[deployment.name] = line.provider
        return opened

    async def release(self, deployments: Sequence[Deployment]) -> None:
        """Close the connections of those that nobody needs any more."""
        for line in self._lines:
            line.fleets -= any(line.serves(deployment) for deployment in deployments)
        unused = [line for line in self._lines if not line.fleets]
        self._lines = [line for line in self._lines if line.fleets]
        for line in unused:
            await line.http.close()

    async def aclose(self) -> None:
        """Close all connections."""
        for line in self._lines:
            await line.http.close()

    def _line(self, deployment: Deployment) -> _Line:
        http = http_session(self._most_connections)
        line = _Line(deployment, self._adapters.provider(deployment, http), http)
        self._lines.append(line)
        return line


@asynccontextmanager
async def opened_providers(
    inference: InferenceServiceAsyncStub,
    environment: Mapping[str, str],
    most_connections: int,
    pace_seconds: float = 0.0,
) -> AsyncIterator[Providers]:
    """Providers whose connections are kept alive, and closed at the end.

    What they say within `pace_seconds` of a piece of an answer comes with the next.
    """
    # A token is fetched twice an hour: its connection is not worth keeping.
    async with http_session(most_connections, keep=False) as http:
        providers = Providers(Adapters(http, inference, environment, pace_seconds), most_connections)
        try:
            yield providers
        finally:
            await providers.aclose()


def http_session(most_connections: int, *, keep: bool = True) -> aiohttp.ClientSession:
    """A way out: data goes where the routes say, with no cookies, proxies or passwords from the surroundings."""
    connector = aiohttp.TCPConnector(limit=most_connections, force_close=not keep)
    # Connections that are not kept carry tokens, and no prompts.
    traces = [_departures()] if keep else []
    return aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, trace_configs=traces
    )


def _departures() -> aiohttp.TraceConfig:
    """Notes of each request when it leaves us."""
    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(_departed)
    return trace


async def _departed(_: aiohttp.ClientSession, __: SimpleNamespace, ___: aiohttp.TraceRequestHeadersSentParams) -> None:
    current_dispatch().held = False


class Adapters:
    """Makes providers; those known by the same credential share its token and its turns.

    `http` is for requests of our own, such as for tokens.
    """

    def __init__(
        self,
        http: aiohttp.ClientSession,
        inference: InferenceServiceAsyncStub,
        environment: Mapping[str, str],
        pace_seconds: float = 0.0,
    ) -> None:
        self._http = http
        self._inference = inference
        self._environment = environment
        self._pace_seconds = pace_seconds
        self._trust: dict[Path, ssl.SSLContext] = {}
        self._credentials: dict[tuple[str, ...], RenewedCredential] = {}
        self._gates: dict[tuple[str, ...], Gate] = {}

    def provider(self, deployment: Deployment, http: aiohttp.ClientSession) -> Provider:
        """The adapter that speaks to `deployment` through `http`."""
        match deployment:
            case LocalDeployment():
                return LocalProvider(deployment, self._inference, self._pace_seconds)
            case OpenAIDeployment():
                return self._openai(deployment, http)
            case GigaChatDeployment():
                return self._gigachat(deployment, http)
            case YandexDeployment():
                return self._yandex(deployment, http)
            case LiteLLMDeployment():
                return self._litellm(deployment)
            case _:
                raise TypeError(f"no adapter speaks to {type(deployment).__name__}")

    def _openai(self, deployment: OpenAIDeployment, http: aiohttp.ClientSession) -> OpenAIProvider:
        headers = PROFILES[deployment.profile].headers
        if isinstance(deployment, CloudRuDeployment):
            return OpenAIProvider(deployment, self._endpoint(deployment, http, self._cloudru(deployment), headers))
        return OpenAIProvider(deployment, self._endpoint(deployment, http, self._fixed(deployment, "Bearer"), headers))

    def _cloudru(self, deployment: CloudRuDeployment) -> Credential:
        key_id, secret = self._resolved(deployment.key_id), self._resolved(deployment.credential)
        issue = cloudru_issuer(self._wire(deployment, self._http), deployment, key_id, secret)
        return self._renewed(deployment, issue, deployment.token_url, key_id, secret)

    def _gigachat(self, deployment: GigaChatDeployment, http: aiohttp.ClientSession) -> GigaChatProvider:
        key = self._resolved(deployment.credential)
        issue = gigachat_issuer(self._wire(deployment, self._http), deployment, key)
        account = (deployment.token_url, deployment.scope, key)
        credential = self._renewed(deployment, issue, *account)
        gate = _shared(self._gates, account, lambda: Gate(deployment.concurrency, deployment.queue_seconds))
        return GigaChatProvider(
            deployment, self._endpoint(deployment, http, credential, {"accept": "text/event-stream"}), gate
        )

    def _yandex(self, deployment: YandexDeployment, http: aiohttp.ClientSession) -> YandexProvider:
        headers = {} if deployment.log_prompts else KEPT_PRIVATE
        endpoint = self._endpoint(deployment, http, self._yandex_credential(deployment), headers)
        return YandexProvider(deployment, endpoint, self._resolved(deployment.folder))

    def _litellm(self, deployment: LiteLLMDeployment) -> Provider:
        # Not at the top: it is an extra, slow to import, and reads its surroundings when it is.
        from services.router.providers.litellm import LiteLLMProvider

        headers = {name: self._resolved(value) for name, value in deployment.headers.items()}
        return LiteLLMProvider(deployment, self._resolved(deployment.credential or ""), headers, self._pace_seconds)

    def _yandex_credential(self, deployment: YandexDeployment) -> Credential:
        match deployment.auth:
            case "api_key":
                return self._fixed(deployment, "Api-Key")
            case "iam":
                return self._fixed(deployment, "Bearer")
            case "metadata":
                issue = metadata_issuer(self._wire(deployment, self._http), deployment.metadata_url)
                return self._renewed(deployment, issue, deployment.metadata_url)
            case "account_key":
                return self._yandex_account(deployment, self._resolved(deployment.credential or ""))

    def _yandex_account(self, deployment: YandexDeployment, key: str) -> Credential:
        # Not at the top: signatures cost every router 12 MB.
        from services.router.providers.service_account import account_issuer

        issue = account_issuer(self._wire(deployment, self._http), deployment.token_url, key)
        return self._renewed(deployment, issue, deployment.token_url, key)

    def _renewed(self, deployment: HttpDeployment, issue: Issue, *known_by: str) -> RenewedCredential:
        """Tokens shared by those known by the same who also trust the same authorities: `issue` trusts them."""
        key = (*known_by, str(deployment.ca_file))
        return _shared(self._credentials, key, lambda: RenewedCredential(issue))

    def _fixed(self, deployment: HttpDeployment, scheme: str) -> FixedCredential:
        secret = self._resolved(deployment.credential or "")
        return FixedCredential(f"{scheme} {secret}" if secret else "")

    def _endpoint(
        self,
        deployment: HttpDeployment,
        http: aiohttp.ClientSession,
        credential: Credential,
        headers: Mapping[str, str],
    ) -> Endpoint:
        written = {name: self._resolved(value) for name, value in deployment.headers.items()}
        # What the adapter needs, privacy above all, goes before what the file says.
        return Endpoint(
            deployment.base_url,
            deployment.destination,
            self._wire(deployment, http),
            credential,
            {**written, **headers},
            deployment.timeouts,
            self._pace_seconds,
        )

    def _wire(self, deployment: HttpDeployment, http: aiohttp.ClientSession) -> Wire:
        path = deployment.ca_file
        if path is None:
            return Wire(http)
        return Wire(http, _shared(self._trust, path, lambda: ssl.create_default_context(cafile=path)))

    def _resolved(self, value: str) -> str:
        return resolved(value, self._environment)


Key = TypeVar("Key")


def _shared(made: dict[Key, Shared], key: Key, make: Callable[[], Shared]) -> Shared:
    """What was made for `key`, or now is."""
    if key not in made:
        made[key] = make()
    return made[key]
