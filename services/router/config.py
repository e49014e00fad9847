"""What differs between one deployment of the router and another."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from meshkit.settings import ServiceSettings
from services.router.routes import load_routes


class RouterConfig(ServiceSettings):
    """Settings of the router room."""

    model_config = SettingsConfigDict(env_prefix="LLMMESH_ROUTER_", frozen=True)

    routes: Path
    """The routes file: every deployment, see docs/routes.md. Credentials it names are read from the environment."""
    price_refresh_seconds: float = Field(default=60.0, gt=0)
    """How often prices are asked of billing."""
    coalesce_seconds: float = Field(default=0.02, ge=0, le=1)
    """Tokens that arrive within this time of the last message share the next one."""
    breaker_failures: int = Field(default=3, ge=1)
    """Failures in a row after which a deployment is left alone."""
    breaker_open_seconds: float = Field(default=10.0, gt=0)
    """How long it is left alone, unless the provider asked for longer."""
    provider_connections: int = Field(default=1000, ge=1)
    """Most connections open to HTTP providers at once."""

    @field_validator("routes")
    @classmethod
    def _readable(cls, routes: Path) -> Path:
        load_routes(routes, os.environ)
        return routes
