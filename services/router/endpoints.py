"""Deployments spoken to over HTTP: where they are, how we are known there, what their API takes."""

from __future__ import annotations

import hashlib
import importlib.util
import ipaddress
import re
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, JsonValue, PrivateAttr, StringConstraints, field_validator, model_validator

from meshkit.egress import DataClass, Region, known_region
from services.router.deployment import Capability, Deployment, LocalDeployment
from services.router.references import REFERENCE, resolved

Reference = Annotated[str, StringConstraints(pattern=REFERENCE)]
HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]+$", to_lower=True)]
HeaderValue = Annotated[str, StringConstraints(pattern=r"^[\x20-\x7e]+$")]
PathPart = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]*$", max_length=128)]
HealthPath = Annotated[str, StringConstraints(pattern=r"^(/[A-Za-z0-9._/-]+)?$", max_length=256)]

VERSION = re.compile(r"/v\d+$")
OWN_HEADERS = frozenset({"authorization", "connection", "content-length", "content-type", "host", "transfer-encoding"})


def plain_url(url: str) -> str:
    """A URL without its last slash, if it holds nothing secret and can be called."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an http or https URL")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("must hold no user, password, query or fragment")
    return url.rstrip("/")


class HttpDeployment(Deployment):
    """A model behind an HTTP endpoint."""

    can: ClassVar[frozenset[Capability]] = frozenset(Capability)
    """The most the adapter can do, whatever the model can."""

    base_url: str
    """Up to and with the version, such as https://api.openai.com/v1."""
    credential: Reference | None = None
    """env:NAME of the variable, or file:/PATH of the file, that holds the secret we are known by."""
    optional: bool = False
    """Leave the deployment out, rather than refuse to start, while its credential is not set."""
    headers: dict[HeaderName, HeaderValue] = Field(default_factory=dict)
    """Sent with every request; a value env:NAME or file:/PATH is read from there."""
    health_path: HealthPath = ""
    """Path below base_url that answers 200 to a GET with our credential while it can be called, such as /models."""
    ca_file: Path | None = None
    """PEM file with the authorities to trust instead of the system's; there is no way not to check."""
    _secrets: str = PrivateAttr("")
    """Tells an entry from the same one whose secrets are others: equal entries share a provider and its connections."""

    @property
    def references(self) -> dict[str, str]:
        """Every value that may be read from elsewhere, by its place in the entry."""
        return {"credential": self.credential or ""} | {
            f"headers.{name}": value for name, value in self.headers.items()
        }

    def with_secrets(self, environment: Mapping[str, str]) -> Self:
        """The same entry, equal only to itself with the secrets of this moment."""
        values = "\0".join(resolved(value, environment) for value in self.references.values())
        entry = self.model_copy()
        entry._secrets = hashlib.sha256(values.encode()).hexdigest()
        return entry

    @field_validator("base_url")
    @classmethod
    def _plain_url(cls, url: str) -> str:
        return plain_url(url)

    @field_validator("headers")
    @classmethod
    def _not_ours(cls, headers: dict[str, str]) -> dict[str, str]:
        if taken := sorted(OWN_HEADERS & headers.keys()):
            raise ValueError(f"{', '.join(taken)} may not be set here")
        return headers

    @field_validator("ca_file")
    @classmethod
    def _holds_authorities(cls, path: Path | None) -> Path | None:
        if path is None:
            return None
        try:
            trusted = ssl.create_default_context(cafile=path).cert_store_stats()
        except (OSError, ssl.SSLError):
            trusted = {}
        if not trusted.get("x509_ca"):
            raise ValueError("must be a PEM file that holds a certificate authority")
        return path

    @model_validator(mode="after")
    def _encrypted_outside(self) -> Self:
        for field, url in self._urls():
            if url.startswith("http:") and self.region is not Region.LOCAL and not _is_loopback(url):
                raise ValueError(f"{field} must be https unless region is local")
        return self

    @model_validator(mode="after")
    def _where_it_is_known_to_be(self) -> Self:
        known = known_region(self.base_url)
        if known and self.region is not known:
            raise ValueError(f"region must be {known}: that is where {self.base_url} processes data")
        return self

    @model_validator(mode="after")
    def _optional_for_a_reason(self) -> Self:
        if self.optional and not self.credential:
            raise ValueError("optional needs a credential that may be absent")
        return self

    @model_validator(mode="after")
    def _no_more_than_the_adapter_can(self) -> Self:
        if beyond := sorted(self.capabilities - self.can):
            raise ValueError(f"capabilities: its adapter cannot do {', '.join(beyond)}")
        return self

    def _urls(self) -> Iterator[tuple[str, str]]:
        """Every URL that is called, by its field."""
        yield "base_url", self.base_url


class OpenAIDeployment(HttpDeployment):
    """A model behind any endpoint that speaks OpenAI's HTTP API."""

    adapter: Literal["openai"]
    profile: Literal["openai", "dashscope", "yandex", "cloudru", "vllm"] = "openai"
    """Whose understanding of that API it is."""
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """How this endpoint calls the token limit."""
    include_usage: bool = True
    """Ask for token counts at the end of a stream; turn off where the endpoint refuses the option."""
    defaults: dict[str, JsonValue] = Field(default_factory=dict)
    """Further fields of the chat request, such as enable_thinking; the caller's own go before."""


class CloudRuDeployment(OpenAIDeployment):
    """A model of Cloud.ru Foundation Models; the credential is the secret of a service account's key."""

    adapter: Literal["cloudru"]  # type: ignore[assignment]
    profile: Literal["cloudru"] = "cloudru"
    base_url: str = "https://foundation-models.api.cloud.ru/api/gigacube/openai/v1"
    credential: Reference
    key_id: HeaderValue
    """Name of that key, or env:NAME."""
    token_url: str = "https://iam.api.cloud.ru/api/v1/auth/token"  # noqa: S105 - an address
    """Where key and secret are exchanged for a token."""

    @property
    def references(self) -> dict[str, str]:
        """The key's name may come from the environment, too."""
        return super().references | {"key_id": self.key_id}

    _check_token_url = field_validator("token_url")(plain_url)

    def _urls(self) -> Iterator[tuple[str, str]]:
        yield from super()._urls()
        yield "token_url", self.token_url


class GigaChatDeployment(HttpDeployment):
    """A model of GigaChat; the credential is the authorization key: base64 of client_id:client_secret."""

    can: ClassVar[frozenset[Capability]] = frozenset({Capability.TOOLS, Capability.JSON_SCHEMA})

    adapter: Literal["gigachat"]
    base_url: str = "https://gigachat.devices.sberbank.ru/api/v1"
    api: Literal["v1", "v2"] = "v1"
    """Version of the API that answers; vectors and models stay with the one of base_url."""
    credential: Reference
    region: Literal[Region.RUSSIA, Region.LOCAL] = Region.RUSSIA
    token_url: str = "https://ngw.devices.sberbank.ru:9443/api/v2/oauth"  # noqa: S105 - an address
    """Where the key is exchanged for a token."""
    scope: Literal["GIGACHAT_API_PERS", "GIGACHAT_API_B2B", "GIGACHAT_API_CORP"] = "GIGACHAT_API_PERS"
    """What the key was issued for: persons, prepaid or postpaid companies."""
    concurrency: int = Field(default=1, ge=1, le=1000)
    """Answers at once for this credential, all its deployments together: 1 for persons, 10 for companies."""
    queue_seconds: float = Field(default=5, ge=0, le=60)
    """Longest wait for one's turn before another deployment is asked."""
    precached: Literal["beside", "inside"] = "beside"
    """Whether prompt_tokens leaves out the tokens of precached_prompt_tokens, or holds them too."""

    @property
    def chat_base_url(self) -> str:
        """Where answers are asked for."""
        return VERSION.sub(f"/{self.api}", self.base_url)

    _check_token_url = field_validator("token_url")(plain_url)

    def _urls(self) -> Iterator[tuple[str, str]]:
        yield from super()._urls()
        yield "token_url", self.token_url


class YandexDeployment(HttpDeployment):
    """A model of Yandex AI Studio behind its native API; `model` is its name there, such as yandexgpt-lite."""

    can: ClassVar[frozenset[Capability]] = frozenset({Capability.TOOLS, Capability.JSON_SCHEMA})

    adapter: Literal["yandex"]
    base_url: str = "https://llm.api.cloud.yandex.net/foundationModels/v1"
    region: Literal[Region.RUSSIA, Region.LOCAL] = Region.RUSSIA
    folder: HeaderValue
    """Folder of the cloud that is billed, or env:NAME."""
    branch: PathPart = "latest"
    """Version of the model: latest, rc, deprecated, or that of a fine-tuned one with its suffix."""
    auth: Literal["api_key", "iam", "account_key", "metadata"] = "api_key"
    """What we are known by: the credential as API key, as IAM token or as the JSON of a service account's authorized
    key, which is exchanged for tokens; or the machine's own service account."""
    token_url: str = "https://iam.api.cloud.yandex.net/iam/v1/tokens"  # noqa: S105 - an address
    """Where a service account's key is exchanged for a token."""
    metadata_url: str = "http://169.254.169.254/computeMetadata/v1/instance/service-accounts/default/token"
    """Where a machine of that cloud asks for the token of its service account."""
    log_prompts: bool = False
    """Let the provider keep prompts; only where nothing but public data may go."""
    corrections: Literal["break", "append"] = "break"
    """When the model takes back what it has said: end the answer as broken, or say what differs once more."""

    @property
    def references(self) -> dict[str, str]:
        """The folder may come from the environment, too."""
        return super().references | {"folder": self.folder}

    _check_token_url = field_validator("token_url")(plain_url)

    def _urls(self) -> Iterator[tuple[str, str]]:
        yield from super()._urls()
        yield "token_url", self.token_url

    @field_validator("model")
    @classmethod
    def _part_of_a_path(cls, model: str) -> str:
        if "/" in model or "@" in model:
            raise ValueError("must be the model's name alone, such as yandexgpt; see folder and branch")
        return model

    @model_validator(mode="after")
    def _known_by_something(self) -> Self:
        if (self.auth == "metadata") == bool(self.credential):
            raise ValueError("credential must be given, but not with auth: metadata")
        return self

    @model_validator(mode="after")
    def _keeps_nothing_but_public_data(self) -> Self:
        if self.log_prompts and self.data_classes != {DataClass.PUBLIC}:
            raise ValueError("log_prompts needs data_classes: [public]")
        return self


class LiteLLMDeployment(HttpDeployment):
    """A model of any provider LiteLLM knows; `model` is LiteLLM's name for it, such as anthropic/claude-opus-5."""

    adapter: Literal["litellm"]
    base_url: str = ""
    """Endpoint to use instead of the one LiteLLM knows."""
    ca_file: None = None
    """LiteLLM's clients know the system's authorities only."""
    health_path: Literal[""] = ""
    """LiteLLM asks nobody how they are."""

    @model_validator(mode="after")
    def _installed(self) -> Self:
        if importlib.util.find_spec("litellm") is None:
            raise ValueError("adapter litellm needs the extra llmmesh[litellm], which is not installed")
        return self

    @model_validator(mode="after")
    def _checks_certificates(self) -> Self:
        if self.model.startswith("gigachat/"):
            raise ValueError("use the adapter gigachat: LiteLLM does not check certificates there")
        return self

    @model_validator(mode="after")
    def _outside_unless_shown_otherwise(self) -> Self:
        if not self.base_url and self.region in (Region.LOCAL, Region.RUSSIA):
            raise ValueError(f"region may be {self.region} only with a base_url that is there")
        return self


AnyDeployment = Annotated[
    LocalDeployment | OpenAIDeployment | CloudRuDeployment | GigaChatDeployment | YandexDeployment | LiteLLMDeployment,
    Field(discriminator="adapter"),
]


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
