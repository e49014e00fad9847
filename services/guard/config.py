"""Settings of the guard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import DirectoryPath, Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from meshkit.egress import Region
from meshkit.settings import ServiceSettings

TIERS = frozenset({"free", "pro", "enterprise"})


class GuardConfig(ServiceSettings):
    """Everything that differs between one deployment of the guard and another."""

    model_config = SettingsConfigDict(env_prefix="LLMMESH_GUARD_", frozen=True)

    packs: DirectoryPath = Path(__file__).parent / "packs"
    """Folder of the rule packs (*.yaml); one mistake in any of them and the guard does not start."""
    packs_poll_seconds: float = Field(default=2.0, gt=0)
    """How often the folder is looked at for changes."""
    cache: Path | None = None
    """Folder for what start-up compiles, so that the next start is quick; empty keeps nothing."""
    azure_endpoint: str = ""
    """Address of an Azure AI Content Safety resource, https://NAME.cognitiveservices.azure.com; empty for none."""
    azure_key: SecretStr = SecretStr("")
    """Its subscription key."""
    azure_region: Region = Region.GLOBAL
    """Where it processes data: local, russia, eu or global."""
    escalation_seconds: float = Field(default=0.5, gt=0)
    """Longest that a text waits for the slower layers together, where neither its tenant nor its tier says else."""
    tier_escalation_seconds: Mapping[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """The same for tenants of a tier, as JSON: {"free": 0.2, "enterprise": 2}."""
    embedding: bool = True
    """Whether the inference room's embedding model decides where the classifier is unsure."""
    llama_guard_model: str = ""
    """Name of a chat model of the inference room that answers as Llama Guard 3 does; empty for none."""
    llama_guard_block_from: float = Field(default=0.5, gt=0, le=1)
    """Probability of "unsafe" from which a text is refused; the model's own "unsafe" refuses in any case."""
    llama_guard_unsure_from: float = Field(default=0.2, ge=0, le=1)
    """Probability from which a text that it calls safe is shown to the layers after it."""
    inference_target: str = ""
    """Address of the inference room; empty reaches it through `mesh_target`."""
    longest_text_characters: int = Field(default=2_000_000, gt=0)
    """Longest prompt, all its messages together, and longest text to try."""
    longest_answer_characters: int = Field(default=4_000_000, gt=0)
    """Longest answer that is watched."""
    most_tenant_rules: int = Field(default=200, gt=0)
    """Tenants whose own rules are held compiled; of more, those that asked last."""
    most_repeated_characters: int = Field(default=4000, ge=0)
    """Characters after which an answer that says nothing but the same again and again is ended; 0 never ends one."""

    @field_validator("tier_escalation_seconds")
    @classmethod
    def _of_tiers(cls, seconds: Mapping[str, float]) -> Mapping[str, float]:
        if unknown := sorted(set(seconds) - TIERS):
            raise ValueError(f"knows no tier {unknown[0]!r}, only {', '.join(sorted(TIERS))}")
        return seconds
