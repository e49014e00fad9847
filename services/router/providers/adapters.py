"""Which adapter speaks to which kind of deployment: a further kind is one more case here."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
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
from services.router.providers.gate import Gate
from services.router.providers.gigachat import GigaChatProvider
from services.router.providers.http import Endpoint, Wire
from services.router.providers.issuers import cloudru_issuer, gigachat_issuer, metadata_issuer
from services.router.providers.local import LocalProvider
from services.router.providers.openai import OpenAIProvider
from services.router.providers.profiles import PROFILES
from services.router.providers.provider import Provider
from services.router.providers.yandex import YandexProvider
from services.router.routes import resolved

if TYPE_CHECKING:
    from llmmesh.inference.v1.inference_pb2_grpc import InferenceServiceAsyncStub

Shared = TypeVar("Shared")

KEPT_PRIVATE = {"x-data-logging-enabled": "false"}


@asynccontextmanager
async def opened_providers(
    deployments: Sequence[Deployment],
    inference: InferenceServiceAsyncStub,
    environment: Mapping[str, str],
    most_connections: int,
) -> AsyncIterator[dict[str, Provider]]:
    """A provider for each deployment, by its name; connections are kept alive and closed at the end."""
    connector = aiohttp.TCPConnector(limit=most_connections)
    # Data goes where the routes say: no cookies, no proxies or passwords from the surroundings.
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False) as http:
        adapters = Adapters(http, inference, environment)
        yield {deployment.name: adapters.provider(deployment) for deployment in deployments}


class Adapters:
    """Makes providers; those known by the same credential share its token and its turns."""

    def __init__(
        self, http: aiohttp.ClientSession, inference: InferenceServiceAsyncStub, environment: Mapping[str, str]
    ) -> None:
        self._http = http
        self._inference = inference
        self._environment = environment
        self._trust: dict[Path, ssl.SSLContext] = {}
        self._credentials: dict[tuple[str, ...], RenewedCredential] = {}
        self._gates: dict[tuple[str, ...], Gate] = {}

    def provider(self, deployment: Deployment) -> Provider:
        """The adapter that speaks to `deployment`."""
        match deployment:
            case LocalDeployment():
                return LocalProvider(deployment, self._inference)
            case OpenAIDeployment():
                return self._openai(deployment)
            case GigaChatDeployment():
                return self._gigachat(deployment)
            case YandexDeployment():
                return self._yandex(deployment)
            case LiteLLMDeployment():
                return self._litellm(deployment)
            case _:
                raise TypeError(f"no adapter speaks to {type(deployment).__name__}")

    def _openai(self, deployment: OpenAIDeployment) -> OpenAIProvider:
        headers = PROFILES[deployment.profile].headers
        if isinstance(deployment, CloudRuDeployment):
            return OpenAIProvider(deployment, self._endpoint(deployment, self._cloudru(deployment), headers))
        return OpenAIProvider(deployment, self._endpoint(deployment, self._fixed(deployment, "Bearer"), headers))

    def _cloudru(self, deployment: CloudRuDeployment) -> Credential:
        key_id, secret = self._resolved(deployment.key_id), self._resolved(deployment.credential)
        issue = cloudru_issuer(self._wire(deployment), deployment, key_id, secret)
        return _shared(self._credentials, (deployment.token_url, key_id, secret), lambda: RenewedCredential(issue))

    def _gigachat(self, deployment: GigaChatDeployment) -> GigaChatProvider:
        key = self._resolved(deployment.credential)
        issue = gigachat_issuer(self._wire(deployment), deployment, key)
        account = (deployment.token_url, deployment.scope, key)
        credential = _shared(self._credentials, account, lambda: RenewedCredential(issue))
        gate = _shared(self._gates, account, lambda: Gate(deployment.concurrency, deployment.queue_seconds))
        return GigaChatProvider(
            deployment, self._endpoint(deployment, credential, {"accept": "text/event-stream"}), gate
        )

    def _yandex(self, deployment: YandexDeployment) -> YandexProvider:
        headers = {} if deployment.log_prompts else KEPT_PRIVATE
        endpoint = self._endpoint(deployment, self._yandex_credential(deployment), headers)
        return YandexProvider(deployment, endpoint, self._resolved(deployment.folder))

    def _litellm(self, deployment: LiteLLMDeployment) -> Provider:
        # Not at the top: it is an extra, slow to import, and reads its surroundings when it is.
        from services.router.providers.litellm import LiteLLMProvider

        headers = {name: self._resolved(value) for name, value in deployment.headers.items()}
        return LiteLLMProvider(deployment, self._resolved(deployment.credential or ""), headers)

    def _yandex_credential(self, deployment: YandexDeployment) -> Credential:
        if deployment.auth != "metadata":
            return self._fixed(deployment, "Api-Key" if deployment.auth == "api_key" else "Bearer")
        issue = metadata_issuer(self._wire(deployment), deployment.metadata_url)
        return _shared(self._credentials, (deployment.metadata_url,), lambda: RenewedCredential(issue))

    def _fixed(self, deployment: HttpDeployment, scheme: str) -> FixedCredential:
        secret = self._resolved(deployment.credential or "")
        return FixedCredential(f"{scheme} {secret}" if secret else "")

    def _endpoint(self, deployment: HttpDeployment, credential: Credential, headers: Mapping[str, str]) -> Endpoint:
        written = {name: self._resolved(value) for name, value in deployment.headers.items()}
        # What the adapter needs, privacy above all, goes before what the file says.
        return Endpoint(
            deployment.base_url,
            deployment.destination,
            self._wire(deployment),
            credential,
            {**written, **headers},
            deployment.timeouts,
        )

    def _wire(self, deployment: HttpDeployment) -> Wire:
        path = deployment.ca_file
        if path is None:
            return Wire(self._http)
        return Wire(self._http, _shared(self._trust, path, lambda: ssl.create_default_context(cafile=path)))

    def _resolved(self, value: str) -> str:
        return resolved(value, self._environment)


Key = TypeVar("Key")


def _shared(made: dict[Key, Shared], key: Key, make: Callable[[], Shared]) -> Shared:
    """What was made for `key`, or now is."""
    if key not in made:
        made[key] = make()
    return made[key]
