"""Issuers outside the mesh whose access tokens the edge takes, and what their claims stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, field_validator, model_validator

from llmmesh.access.v1 import access_pb2
from meshkit.access import role_name

OWN_ISSUER = "llmmesh"
ROLES = frozenset(role_name(role) for role in access_pb2.Role.values() if role)


def _known_role(role: str) -> str:
    if role not in ROLES:
        raise ValueError(f"must be one of {', '.join(sorted(ROLES))}")
    return role


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Condition(_Strict):
    """What a token must say for a rule to hold; everything given must hold."""

    claim: tuple[str, ...] = ()
    """Path of a claim: a name, or names from the outside in."""
    value: str = ""
    """Its value, or one of its values; of `scope` and `scp`, one of its words."""
    acr: tuple[str, ...] = ()
    """How the user was authenticated: one of these classes (OIDC `acr`)."""
    amr: tuple[str, ...] = ()
    """By which means: at least one of these (OIDC `amr`), such as "mfa"."""

    @field_validator("claim", mode="before")
    @classmethod
    def _path(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _claim_with_value(self) -> Condition:
        if bool(self.claim) != bool(self.value):
            raise ValueError("claim and value go together")
        return self


class TenantRule(Condition):
    """Which tenant a token belongs to; the first rule that holds decides."""

    tenant: str = Field(pattern="^[a-z0-9][a-z0-9-]{0,61}[a-z0-9]$")


class RoleRule(Condition):
    """A role that a token has; a rule must ask for a claim, lest everybody has it."""

    role: Annotated[str, AfterValidator(_known_role)]

    @model_validator(mode="after")
    def _asks(self) -> RoleRule:
        if not self.claim:
            raise ValueError(f"the rule for {self.role!r} must name a claim and its value")
        return self


class Issuer(_Strict):
    """One issuer."""

    name: str = Field(pattern="^[a-z][a-z0-9-]{0,30}$")
    """What its users' names begin with in books and logs."""
    issuer: str = Field(min_length=1)
    """The `iss` of its tokens, to the letter."""
    audiences: tuple[str, ...] = Field(min_length=1)
    """A token must be meant for one of these."""
    jwks_uri: str
    """Where its keys are published; https, but for this machine."""
    ca_file: str = "/etc/ssl/certs/ca-certificates.crt"
    """Authorities that may vouch for that address."""
    jwks_seconds: int = Field(default=60, ge=1)
    """How long a fetched key set is used: a key it drops is good no longer than this."""
    user_claim: str = "sub"
    tenants: tuple[TenantRule, ...] = Field(min_length=1)
    roles: tuple[RoleRule, ...] = Field(min_length=1)

    @field_validator("issuer")
    @classmethod
    def _foreign(cls, value: str) -> str:
        if value == OWN_ISSUER:
            raise ValueError(f"{OWN_ISSUER!r} is our own")
        return value

    @field_validator("jwks_uri")
    @classmethod
    def _safe(cls, value: str) -> str:
        url = urlsplit(value)
        if not url.hostname or url.scheme not in ("http", "https"):
            raise ValueError("must be a URL")
        if url.scheme == "http" and url.hostname not in ("127.0.0.1", "localhost"):
            raise ValueError("must be https: who changes keys on their way is everybody")
        return value


def read_issuers(path: Path | None) -> tuple[Issuer, ...]:
    """The issuers of a YAML file; none without one.

    Raises:
        ValueError: If one cannot be used, or two have a name or an issuer in common.
    """
    if path is None:
        return ()
    issuers = TypeAdapter(tuple[Issuer, ...]).validate_python(yaml.safe_load(path.read_text())["issuers"])
    for field in ("name", "issuer"):
        values = [getattr(each, field) for each in issuers]
        if len(set(values)) < len(values):
            raise ValueError(f"two issuers have the same {field}")
    return issuers
