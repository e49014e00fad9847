"""Which adapter speaks to which kind of deployment: a further kind is one more case here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp

from services.router.deployment import Deployment, LocalDeployment, OpenAIDeployment
from services.router.providers.local import LocalProvider
from services.router.providers.openai import OpenAIProvider
from services.router.providers.provider import Provider
from services.router.routes import resolved

if TYPE_CHECKING:
    from llmmesh.inference.v1.inference_pb2_grpc import InferenceServiceAsyncStub


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
        yield {deployment.name: _provider(deployment, inference, http, environment) for deployment in deployments}


def _provider(
    deployment: Deployment,
    inference: InferenceServiceAsyncStub,
    http: aiohttp.ClientSession,
    environment: Mapping[str, str],
) -> Provider:
    match deployment:
        case LocalDeployment():
            return LocalProvider(deployment, inference)
        case OpenAIDeployment():
            credential = resolved(deployment.credential or "", environment)
            headers = {name: resolved(value, environment) for name, value in deployment.headers.items()}
            return OpenAIProvider(deployment, http, credential, headers)
        case _:
            raise TypeError(f"no adapter speaks to {type(deployment).__name__}")
