"""How a request would be routed: the same steps as an answer, without one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llmmesh.chat.v1 import chat_pb2
from llmmesh.router.v1 import router_pb2
from meshkit.errors import ResourceNotFound
from meshkit.identity import Identity
from services.gateway.assignment import assign
from services.gateway.catalogue import Offer
from services.gateway.exchange import DataClass
from services.gateway.policies import TenantPolicy
from services.gateway.resources import Resources
from services.gateway.screening import shown_messages

SEE_ALL = frozenset({"admin", "operator"})
"""Roles that may ask for another tenant."""


@dataclass(frozen=True, slots=True)
class UnsentRequest:
    """A chat, or texts to embed when there are any."""

    prompt: chat_pb2.ChatPrompt
    texts: Sequence[str]
    data_class: DataClass
    """Unspecified lets the guard judge."""
    stated_class: DataClass
    """What its header says, as that of a request that is sent: raises the class, never lowers it."""
    tenant_id: str
    """Whose policy counts; empty for the caller's own."""


class Explaining:
    """Asks the router how it would choose."""

    def __init__(self, resources: Resources) -> None:
        self._peers = resources.peers
        self._known = resources.known

    async def explain(self, request: UnsentRequest, caller: Identity) -> router_pb2.RouteExplanation:
        """Explain a request; it is judged by the guard, but neither refused nor billed.

        Raises:
            MeshError: As the request itself would be refused for its key, its model or its tenant.
        """
        policy = await self._policy(request.tenant_id, caller)
        offer = self._offer(request, policy)
        data_class = max(request.stated_class, request.data_class or await self._judged(request))
        assign(request.prompt, offer.split, caller)
        return await self._peers.router.explain(
            router_pb2.ExplainRouteRequest(
                prompt=request.prompt,
                texts=request.texts,
                constraints=router_pb2.RouteConstraints(
                    deployments=offer.deployments, data_class=data_class, residency=policy.residency
                ),
                preferences=policy.preferences(),
            )
        )

    async def _policy(self, tenant_id: str, caller: Identity) -> TenantPolicy:
        own = await self._known.policies.admit(caller)
        if tenant_id in ("", caller.tenant_id):
            return own
        found = self._known.policies.get(tenant_id) if not SEE_ALL.isdisjoint(caller.roles) else None
        if found is None:
            raise ResourceNotFound(f"There is no tenant {tenant_id!r}.", resource=f"tenants/{tenant_id}")
        return found

    def _offer(self, request: UnsentRequest, policy: TenantPolicy) -> Offer:
        model = request.prompt.model
        if request.texts:
            return self._known.catalogue.embedding_offer(model, policy)
        return self._known.catalogue.chat_offer(model, policy)

    async def _judged(self, request: UnsentRequest) -> DataClass:
        messages = [chat_pb2.ChatMessage(content=[chat_pb2.ContentPart(text=text)]) for text in request.texts]
        shown = messages or shown_messages(request.prompt)
        judged = await self._peers.guard.check(shown, TenantPolicy(), chat_pb2.DATA_CLASS_UNSPECIFIED, masks=False)
        return judged.verdict.data_class
