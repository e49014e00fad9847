"""Settings of the guard."""

from __future__ import annotations

from pathlib import Path

from pydantic import DirectoryPath, Field, SecretStr
from pydantic_settings import SettingsConfigDict

from meshkit.settings import ServiceSettings


class GuardConfig(ServiceSettings):
    """Everything that differs between one deployment of the guard and another."""

    model_config = SettingsConfigDict(env_prefix="LLMMESH_GUARD_", frozen=True)

    packs: DirectoryPath = Path(__file__).parent / "packs"
    """Folder of the rule packs (*.yaml); one mistake in any of them and the guard does not start."""
    cache: Path | None = None
    """Folder for what start-up compiles, so that the next start is quick; empty keeps nothing."""
    azure_endpoint: str = ""
    """Address of an Azure AI Content Safety resource, https://NAME.cognitiveservices.azure.com; empty for none."""
    azure_key: SecretStr = SecretStr("")
    """Its subscription key."""
    escalation_seconds: float = Field(default=0.5, gt=0)
    """Longest that a text waits for the slower layers, where its tenant says nothing else."""
    longest_text_characters: int = Field(default=2_000_000, gt=0)
    """Longest prompt, all its messages together, and longest text to try."""
    longest_answer_characters: int = Field(default=4_000_000, gt=0)
    """Longest answer that is watched."""
