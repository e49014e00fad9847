"""Which channels there are and what they carry, read from YAML; $NAME in a value is an environment variable."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from services.billing.alerts.alert import Alert, at_least

Expanded = Annotated[SecretStr, BeforeValidator(lambda value: os.path.expandvars(str(value)))]


class _Channel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern="^[a-z0-9-]+$")]
    """Identifies it: what it has carried is remembered under this name."""
    kinds: tuple[str, ...] = ()
    """Alerts it carries; empty means all."""
    tenants: tuple[str, ...] = ()
    """Whose alerts it carries; empty means everybody's."""
    least_severity: Literal["low", "medium", "high", "critical"] = "high"
    """Alerts below are not carried."""
    quiet_seconds: Annotated[float, Field(ge=0)] = 600.0
    """How long an alert that was carried is only counted when it is raised again."""
    spacing_seconds: Annotated[float, Field(ge=0)] = 3.0
    """Least time between two messages; what comes meanwhile waits and goes out together."""

    def carries(self, alert: Alert) -> bool:
        """Whether an alert goes this way."""
        kind = not self.kinds or alert.kind in self.kinds
        tenant = not self.tenants or alert.tenant_id in self.tenants
        return kind and tenant and at_least(alert.severity, self.least_severity)


class LogChannel(_Channel):
    """The room's own log."""

    via: Literal["log"]


class WebhookChannel(_Channel):
    """A URL that takes what Slack's incoming webhooks take."""

    via: Literal["webhook"]
    url: Expanded
    """Where to post."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 5.0
    """Longest wait for the answer."""


class EmailChannel(_Channel):
    """An SMTP server."""

    via: Literal["email"]
    host: str
    port: int = 25
    starttls: bool = False
    """Whether to encrypt, with the server's certificate checked."""
    user: str = ""
    password: Expanded = SecretStr("")
    sender: str
    to: Annotated[tuple[str, ...], Field(min_length=1)]
    timeout_seconds: Annotated[float, Field(gt=0)] = 10.0
    """Longest wait for each of the server's answers."""


Channel = LogChannel | WebhookChannel | EmailChannel


class Channels(BaseModel):
    """The contents of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: tuple[Annotated[Channel, Field(discriminator="via")], ...]


DEFAULT = (LogChannel(name="log", via="log"),)


def read_channels(path: Path | None) -> tuple[Channel, ...]:
    """The channels of a file; the log alone when there is none.

    Raises:
        ValueError: If the file is not what it should be, or two channels share a name.
    """
    if path is None:
        return DEFAULT
    try:
        found = Channels.model_validate(yaml.load(path.read_text("utf-8"), yaml.CSafeLoader)).channels
    except (ValidationError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: {error}") from None
    names = [channel.name for channel in found]
    if len(set(names)) < len(names):
        raise ValueError(f"{path}: two channels share a name")
    return found
