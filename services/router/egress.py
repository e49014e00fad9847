"""The only way out: every call to a provider passes here, and only here are providers held."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence

from llmmesh.chat.v1 import chat_pb2
from meshkit.egress import refused, watch_refusals
from services.router.constraints import Limits, forbidden
from services.router.deployment import Deployment
from services.router.providers.provider import AnswerEvent, Condition, Embedded, Provider


class Egress:
    """Calls providers, and refuses a deployment outside the limits whoever chose it."""

    def __init__(self, providers: Mapping[str, Provider]) -> None:
        self._providers = providers
        for name in providers:
            watch_refusals(name)

    def stream_chat(
        self, deployment: Deployment, prompt: chat_pb2.ChatPrompt, limits: Limits
    ) -> AsyncGenerator[AnswerEvent, None]:
        """Answer with `deployment`; closing the generator closes the connection.

        Raises:
            EgressRefused: If the limits forbid the deployment: then nothing was sent.
        """
        self._check(deployment, limits)
        return self._providers[deployment.name].stream_chat(prompt, limits.cargo)

    async def embed(self, deployment: Deployment, texts: Sequence[str], limits: Limits) -> Embedded:
        """Embed with `deployment`.

        Raises:
            EgressRefused: If the limits forbid the deployment: then nothing was sent.
        """
        self._check(deployment, limits)
        return await self._providers[deployment.name].embed(texts, limits.cargo)

    async def condition(self, deployment: Deployment) -> Condition:
        """Ask `deployment` how it is; no data of a caller is sent."""
        return await self._providers[deployment.name].condition()

    def _check(self, deployment: Deployment, limits: Limits) -> None:
        exclusion = forbidden(deployment, limits)
        if exclusion is not None:
            raise refused(deployment.name, exclusion.why, limits.cargo)
