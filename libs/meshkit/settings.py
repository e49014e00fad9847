"""Settings every room shares."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class ServiceSettings(BaseSettings):
    """What differs between one deployment of a room and another; read from environment variables."""

    model_config = SettingsConfigDict(frozen=True)

    listen: str = "0.0.0.0:50051"
    """Address the gRPC server binds; port 0 takes any free one."""
    metrics_listen: str = "0.0.0.0:9090"
    """Address of the Prometheus endpoint; empty turns it off."""
    mesh_target: str = "127.0.0.1:15001"
    """Envoy's mesh listener: every other room is reached through it by gRPC service name."""
    drain_seconds: float = Field(default=10.0, ge=0)
    """Longest that running calls may go on after SIGTERM."""
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")
    """Least severe level that is logged: debug, info, warning or error."""
