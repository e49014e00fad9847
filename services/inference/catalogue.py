"""Every model of the room, by name."""

from __future__ import annotations

from collections.abc import Mapping

from meshkit.errors import ModelNotFound
from services.inference.chat import ChatModel
from services.inference.e5.encoder import NAME
from services.inference.embedding import Embedder
from services.inference.states import ModelState, ModelStatus


class Catalogue:
    """The chat models and the one embedding model."""

    def __init__(self, chat_models: Mapping[str, ChatModel], embedder: Embedder) -> None:
        self._chat_models = chat_models
        self._embedder = embedder

    def chat_model(self, name: str) -> ChatModel:
        """The chat model of that name.

        Raises:
            ModelNotFound: If there is none.
        """
        model = self._chat_models.get(name)
        if model is None:
            raise ModelNotFound(f"there is no chat model {name!r}; ListModels names those there are", model=name)
        return model

    def embedder(self, name: str) -> Embedder:
        """The embedding model of that name; an empty name means the only one.

        Raises:
            ModelNotFound: If there is none.
        """
        if name not in ("", NAME):
            raise ModelNotFound(f"there is no embedding model {name!r}; take {NAME!r}", model=name)
        return self._embedder

    def statuses(self) -> list[ModelStatus]:
        """All models, sorted by name."""
        embedder = self._embedder
        embeds = ModelStatus(NAME, ModelState.READY, embedder.context_tokens, dimensions=embedder.dimensions)
        chats = [model.status for model in self._chat_models.values()]
        return sorted([embeds, *chats], key=lambda status: status.name)
