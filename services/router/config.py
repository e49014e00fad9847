"""What differs between one deployment of the router and another."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from meshkit.settings import ServiceSettings
from services.router.breaker import BreakerPolicy
from services.router.checks import CheckPolicy
from services.router.routes import load_routes


class RouterConfig(ServiceSettings):
    """Settings of the router room."""

    model_config = SettingsConfigDict(env_prefix="LLMMESH_ROUTER_", frozen=True)

    routes: Path
    """The routes file: every deployment, see docs/routes.md. Credentials it names are read from the environment."""
    routes_poll_seconds: float = Field(default=2.0, gt=0)
    """How often the routes file is looked at for changes; SIGHUP has it read at once."""
    price_refresh_seconds: float = Field(default=60.0, gt=0)
    """How often prices are asked of billing."""
    coalesce_seconds: float = Field(default=0.02, ge=0, le=1)
    """Tokens that arrive within this time of the last message share the next one."""
    breaker_failures: int = Field(default=3, ge=1)
    """Failures in a row after which a deployment is left alone."""
    breaker_failure_percent: int = Field(default=50, ge=1, le=100)
    """Failed calls of a hundred after which it is left alone, too, once `breaker_window_calls` were made."""
    breaker_window_seconds: float = Field(default=30.0, gt=0)
    """How far back these calls are counted."""
    breaker_window_calls: int = Field(default=20, ge=1)
    """Fewer calls tell no percentage."""
    breaker_open_seconds: float = Field(default=10.0, gt=0)
    """How long it is left alone, unless the provider asked for longer."""
    breaker_open_jitter: float = Field(default=0.2, ge=0, le=1)
    """Largest part that chance adds to this time, so that replicas do not all come back at once."""
    breaker_successes: int = Field(default=3, ge=1)
    """Whole answers after which it is taken back, and that each stage of its return takes at least."""
    breaker_return_percents: tuple[Annotated[int, Field(ge=1, le=99)], ...] = (10, 50)
    """Stages of its return: of a hundred requests so many go to it first; empty to give it all of them at once."""
    breaker_stage_seconds: float = Field(default=10.0, ge=0)
    """How long each stage lasts at least."""
    health_check_seconds: float = Field(default=10.0, ge=0)
    """How often deployments are asked how they are, where that costs nothing; 0 for never."""
    health_check_idle_seconds: float = Field(default=30.0, ge=0)
    """One that answers is asked only when no call has told anything of it for so long."""
    health_checks_at_once: int = Field(default=4, ge=1)
    """Most of them asked at the same time."""
    redis_url: str = Field(default="", pattern="^((redis|rediss|unix)://.+)?$")
    """Redis through which routers tell each other whom to leave alone, and that keeps what they learn and count; empty:
    each relies on itself and forgets at its end."""
    provider_connections: int = Field(default=1000, ge=1)
    """Most connections open to any one HTTP deployment at once."""

    redis_timeout_seconds: float = Field(default=1.0, gt=0, le=30)
    """Longest wait for Redis; no chat waits for it."""
    learning_beat_seconds: float = Field(default=1.0, gt=0, le=60)
    """How often conclusions are drawn from outcomes and shared."""
    decisions_kept: int = Field(default=50_000, ge=0)
    """Choices of the strategy `learned` kept in Redis for replay, about; some 600 bytes each."""

    @property
    def breaker_policy(self) -> BreakerPolicy:
        """The settings of every breaker."""
        return BreakerPolicy(
            failures_to_open=self.breaker_failures,
            failure_percent_to_open=self.breaker_failure_percent,
            window_seconds=self.breaker_window_seconds,
            window_calls=self.breaker_window_calls,
            open_seconds=self.breaker_open_seconds,
            open_jitter=self.breaker_open_jitter,
            successes_to_close=self.breaker_successes,
            return_percents=self.breaker_return_percents,
            stage_seconds=self.breaker_stage_seconds,
        )

    @property
    def check_policy(self) -> CheckPolicy:
        """The settings of health checks."""
        return CheckPolicy(self.health_check_seconds, self.health_check_idle_seconds, self.health_checks_at_once)

    @field_validator("routes")
    @classmethod
    def _readable(cls, routes: Path) -> Path:
        load_routes(routes, os.environ)
        return routes
