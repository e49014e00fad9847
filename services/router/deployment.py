"""What a deployment is: one endpoint that serves one model, and what may be sent to it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from meshkit.egress import DataClass, Destination, Region

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$", max_length=128)]


LAST_PRIORITY = 100


class Capability(StrEnum):
    """What a model can do beyond talking."""

    TOOLS = "tools"
    JSON_SCHEMA = "json_schema"
    VISION = "vision"


class Strict(BaseModel):
    """Part of the routes file: what it does not know is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class TimeLimits(Strict):
    """How long a deployment may take, in seconds."""

    connect_seconds: float = Field(default=5, gt=0, le=60)
    """Longest to reach it."""
    first_token_seconds: float = Field(default=30, gt=0, le=600)
    """Longest from the call to the first token; the whole call for embeddings."""
    idle_chunk_seconds: float = Field(default=20, gt=0, le=600)
    """Longest silence between two tokens."""
    answer_seconds: float = Field(default=600, gt=0, le=3600)
    """Longest whole answer."""


class Shadow(Strict):
    """What a deployment gets that answers nobody: copies of requests, to see how it would do."""

    share_percent: float = Field(gt=0, le=100)
    """How many of a hundred requests of the model are copied."""
    at_once: int = Field(default=4, ge=1, le=1000)
    """Most copies under way; no more are sent until one ends."""
    tags: frozenset[str] = frozenset()
    """Only requests of tenants with one of these; empty for all."""


class Deployment(Strict):
    """What every deployment says of itself, whichever adapter speaks to it."""

    name: Name
    """Unique; what tenants' policies and prices name."""
    provider: Name
    """Who runs it, as shown to callers."""
    model: str = Field(min_length=1, max_length=256)
    """The provider's own name for the model."""
    serves: Name
    """Public model name; deployments with the same one stand in for each other."""
    region: Region
    """Where it processes data."""
    data_classes: frozenset[DataClass] = frozenset()
    """What it may hold; by default everything on our own machines, public and internal elsewhere."""
    context_tokens: int = Field(gt=0)
    """Most tokens of prompt and answer together."""
    capabilities: frozenset[Capability] = frozenset()
    """What its model can do."""
    embeds: bool = False
    """True for an embedding model."""
    timeouts: TimeLimits = TimeLimits()
    """How long it may take."""
    quality: float = Field(default=0.5, ge=0, le=1)
    """How good its answers are, by whatever measure all the file's deployments were judged."""
    weight: float = Field(default=1, ge=0, le=1000)
    """Its share where deployments are chosen by chance; 0 keeps it for when the others fail."""
    priority: int = Field(default=1, ge=1, le=LAST_PRIORITY)
    """Those of a greater number are asked only after all of a smaller one."""
    first_token_seconds: float = Field(default=0, ge=0, le=600)
    """Time to the first token to expect of it before that was measured."""
    shadow: Shadow | None = None
    """Set for one on trial: it gets copies alone, and nobody its answers."""

    @property
    def destination(self) -> Destination:
        """What the way out has to know of it."""
        return Destination(self.name, self.region, self.data_classes)

    @model_validator(mode="before")
    @classmethod
    def _default_data_classes(cls, given: Any) -> Any:
        if not isinstance(given, dict) or "data_classes" in given:
            return given
        local = given.get("region", cls.model_fields["region"].default) == Region.LOCAL
        return {**given, "data_classes": list(DataClass) if local else [DataClass.PUBLIC, DataClass.INTERNAL]}


class LocalDeployment(Deployment):
    """One of our own models, served by the inference room."""

    adapter: Literal["local"]
    region: Literal[Region.LOCAL] = Region.LOCAL
