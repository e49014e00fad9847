"""Which models exist and who serves them, held in memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llmmesh.router.v1 import router_pb2
from meshkit.errors import DependencyUnavailable, FieldInvalid, ModelNotAllowed, ModelNotFound
from services.gateway.assignment import takes_part
from services.gateway.policies import TenantPolicy


@dataclass(frozen=True, slots=True)
class Offer:
    """A public model as one tenant may use it."""

    model: str
    deployments: tuple[str, ...]
    """Cheapest first; never empty."""
    providers: tuple[str, ...]
    """In the order of the deployments, each once."""
    context_tokens: int
    """Most tokens of prompt and answer together, on the largest of the deployments."""
    embeds: bool
    split: router_pb2.Split | None = None
    """How its requests are split between variants, if the tenant takes part."""
    shadows: tuple[str, ...] = ()
    """Deployments that may get copies of its requests, at nobody's cost but ours."""


class Catalogue:
    """Every public model with the deployments that serve it."""

    def __init__(self) -> None:
        self._models: dict[str, router_pb2.Model] = {}
        self._offers: dict[tuple[str, TenantPolicy], Offer] = {}
        self._known = False

    @property
    def known(self) -> bool:
        """Whether the router has been heard once."""
        return self._known

    def replace(self, models: Iterable[router_pb2.Model]) -> None:
        """Take the router's word for what there is."""
        self._models = {model.name: model for model in models}
        self._offers.clear()
        self._known = True

    def chat_offer(self, model: str, policy: TenantPolicy) -> Offer:
        """The chat model as the tenant may use it.

        Raises:
            FieldInvalid: If it is an embedding model.
            ModelNotFound: If there is no such model.
            ModelNotAllowed: If the tenant may not use it.
        """
        offer = self._offer(model, policy)
        if offer.embeds:
            raise FieldInvalid("model", f"{model!r} makes embeddings, not chat: send it to the embeddings call")
        return offer

    def embedding_offer(self, model: str, policy: TenantPolicy) -> Offer:
        """The embedding model as the tenant may use it; raises as `chat_offer` does."""
        offer = self._offer(model, policy)
        if not offer.embeds:
            raise FieldInvalid("model", f"{model!r} is a chat model: name an embedding model")
        return offer

    def offers(self, policy: TenantPolicy) -> Sequence[Offer]:
        """All models the tenant may use, by name."""
        allowed = (_offered(model, policy) for model in self._ready().values())
        return [offer for offer in allowed if offer is not None]

    def visible_offer(self, model: str, policy: TenantPolicy) -> Offer:
        """One model of `offers`; one that is not among them does not exist for the tenant."""
        found = self._ready().get(model)
        offer = None if found is None else _offered(found, policy)
        if offer is None:
            raise _not_found(model)
        return offer

    def _offer(self, model: str, policy: TenantPolicy) -> Offer:
        offer = self._offers.get((model, policy))
        if offer is not None:
            return offer
        found = self._ready().get(model)
        if found is None:
            raise _not_found(model)
        offer = _offered(found, policy)
        if offer is None:
            raise ModelNotAllowed(f"This tenant may not use the model {model!r}.", model=model)
        self._offers[model, policy] = offer
        return offer

    def _ready(self) -> dict[str, router_pb2.Model]:
        if not self._known:
            raise DependencyUnavailable("The models are not known yet: retry in a moment.", retry_after_seconds=2)
        return self._models


def _offered(model: router_pb2.Model, policy: TenantPolicy) -> Offer | None:
    if policy.allowed_models and model.name not in policy.allowed_models:
        return None
    allowed = policy.allowed_deployments
    usable = [entry for entry in model.deployments if not allowed or entry.name in allowed]
    if not usable:
        return None
    return Offer(
        model=model.name,
        deployments=tuple(entry.name for entry in usable),
        providers=tuple(dict.fromkeys(entry.provider for entry in usable)),
        context_tokens=max(entry.context_tokens for entry in usable),
        embeds=usable[0].embeds,
        shadows=tuple(name for name in model.shadows if not allowed or name in allowed),
        split=_split(model, policy, {entry.name for entry in usable}),
    )


def _split(model: router_pb2.Model, policy: TenantPolicy, deployments: set[str]) -> router_pb2.Split | None:
    there_is = model.HasField("split") and takes_part(model.split, policy.tags, deployments)
    return model.split if there_is else None


def _not_found(model: str) -> ModelNotFound:
    return ModelNotFound(f"There is no model {model!r}: list the models to see their names.", model=model)
