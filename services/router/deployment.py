"""What a deployment is: one endpoint that serves one model, and what may be sent to it."""

from __future__ import annotations

import ipaddress
from enum import StrEnum
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$", max_length=128)]
Reference = Annotated[str, StringConstraints(pattern=r"^env:[A-Za-z_][A-Za-z0-9_]*$")]
HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]+$", to_lower=True)]
HeaderValue = Annotated[str, StringConstraints(pattern=r"^[\x20-\x7e]+$")]

OWN_HEADERS = frozenset({"authorization", "connection", "content-length", "content-type", "host", "transfer-encoding"})


class Region(StrEnum):
    """Where a deployment processes data."""

    LOCAL = "local"
    RUSSIA = "russia"
    EU = "eu"
    GLOBAL = "global"


class DataClass(StrEnum):
    """How sensitive data is, from free to strictest."""

    PUBLIC = "public"
    INTERNAL = "internal"
    CONFIDENTIAL = "confidential"
    SENSITIVE = "sensitive"


class Capability(StrEnum):
    """What a model can do beyond talking."""

    TOOLS = "tools"
    JSON_SCHEMA = "json_schema"
    VISION = "vision"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class TimeLimits(_Strict):
    """How long a deployment may take, in seconds."""

    connect_seconds: float = Field(default=5, gt=0, le=60)
    """Longest to reach it."""
    first_token_seconds: float = Field(default=30, gt=0, le=600)
    """Longest from the call to the first token; the whole call for embeddings."""
    idle_chunk_seconds: float = Field(default=20, gt=0, le=600)
    """Longest silence between two tokens."""
    answer_seconds: float = Field(default=600, gt=0, le=3600)
    """Longest whole answer."""


class Deployment(_Strict):
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


class OpenAIDeployment(Deployment):
    """A model behind any endpoint that speaks OpenAI's HTTP API."""

    adapter: Literal["openai"]
    base_url: str
    """Up to and with the version, such as https://api.openai.com/v1."""
    credential: Reference | None = None
    """env:NAME of the variable that holds the bearer token."""
    optional: bool = False
    """Leave the deployment out, rather than refuse to start, while its credential is not set."""
    headers: dict[HeaderName, HeaderValue] = {}
    """Sent with every request; a value env:NAME is read from that variable."""
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """How this endpoint calls the token limit."""
    include_usage: bool = True
    """Ask for token counts at the end of a stream; turn off where the endpoint refuses the option."""

    @field_validator("base_url")
    @classmethod
    def _plain_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be an http or https URL")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("must hold no user, password, query or fragment")
        return url.rstrip("/")

    @field_validator("headers")
    @classmethod
    def _not_ours(cls, headers: dict[str, str]) -> dict[str, str]:
        if taken := sorted(OWN_HEADERS & headers.keys()):
            raise ValueError(f"{', '.join(taken)} may not be set here")
        return headers

    @model_validator(mode="after")
    def _encrypted_outside(self) -> Self:
        if self.base_url.startswith("http:") and self.region is not Region.LOCAL and not _is_loopback(self.base_url):
            raise ValueError("base_url must be https unless region is local")
        return self

    @model_validator(mode="after")
    def _optional_for_a_reason(self) -> Self:
        if self.optional and not self.credential:
            raise ValueError("optional needs a credential that may be absent")
        return self


AnyDeployment = Annotated[LocalDeployment | OpenAIDeployment, Field(discriminator="adapter")]


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
