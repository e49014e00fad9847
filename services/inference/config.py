"""What differs between one deployment of the inference room and another."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from meshkit.settings import ServiceSettings


class InferenceConfig(ServiceSettings):
    """Settings of the inference room."""

    model_config = SettingsConfigDict(env_prefix="LLMMESH_INFERENCE_", frozen=True)

    models: Annotated[Mapping[str, str], NoDecode] = Field(
        default_factory=lambda: {"smollm2-135m": "var/models/smollm2-135m"}
    )
    """Chat models as `name=source`, separated by commas; a source is a folder or a hub id. Empty serves embeddings
    alone, without loading the engine's libraries."""
    max_model_len: int = Field(default=4096, ge=0)
    """Most tokens of prompt and answer together; 0 takes what the model was trained for."""
    max_running: int = Field(default=32, ge=1)
    """Answers one model writes at the same time."""
    max_waiting: int = Field(default=64, ge=0)
    """Further questions that wait for their turn at one model; more are refused."""
    answer_seconds: float = Field(default=600.0, gt=0)
    """Longest one answer may take; a caller's shorter deadline wins."""
    coalesce_seconds: float = Field(default=0.02, ge=0, le=1)
    """Tokens made within this time of the last message share the next one."""
    enforce_eager: bool | None = None
    """Skip compilation: the engine starts in about a third of the time and writes more slowly. Unset: true on a CPU,
    false on a GPU."""
    cpu_kv_gib: float = Field(default=1.0, gt=0)
    """On a CPU: memory for the attention cache of each chat model, in GiB."""
    cpu_cores: str = Field(default="", pattern=r"^[0-9,-]*$")
    """On a CPU: cores the engine computes on, such as `0-3,8`. Empty: all that the machine and the container's limit
    allow but one, which the other services need."""
    gpu_memory_fraction: float = Field(default=0.9, gt=0, le=1)
    """On a GPU: part of its memory that each chat model takes."""
    embedding_threads: int = Field(default=min(2, os.cpu_count() or 1), ge=1)
    """Texts embedded, or pairs scored, at the same time."""
    embedding_max_waiting: int = Field(default=64, ge=1)
    """Calls of EmbedText and ScorePairs under way at once; more are refused."""
    embedding_max_texts: int = Field(default=256, ge=1)
    """Most texts in one call of EmbedText, and pairs in one of ScorePairs."""
    embedding_max_characters: int = Field(default=32768, ge=1)
    """Longest text in a call of either. The model reads the first 512 tokens of it, in pairs 254."""

    @field_validator("models", mode="before")
    @classmethod
    def _listed(cls, models: Any) -> Any:
        if not isinstance(models, str):
            return models
        entries = (entry.partition("=") for entry in models.split(",") if entry.strip())
        pairs = [(name.strip(), source.strip()) for name, _, source in entries]
        if not all(name and source for name, source in pairs):
            raise ValueError("must be name=source pairs separated by commas")
        if len(dict(pairs)) < len(pairs):
            raise ValueError("names a model twice")
        return dict(pairs)
