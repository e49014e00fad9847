"""What differs between one deployment of billing and another."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from meshkit.settings import ServiceSettings
from services.billing.alerts.channels import read_channels
from services.billing.contents.envelope import MasterKey
from services.billing.price_list import read_price_list

SHORTEST_LEDGER_MONTHS = 13


class BillingConfig(ServiceSettings):
    """Settings of the billing room."""

    model_config = SettingsConfigDict(env_prefix="LLMMESH_BILLING_", frozen=True)

    database_url: SecretStr
    """Postgres, as postgresql+psycopg://user:password@host:port/name."""
    signing_key_file: Path
    """Private JWK (Ed25519) that signs virtual keys; made, readable by its owner alone, when missing."""
    base_currency: str = Field(default="RUB", pattern="^[A-Z]{3}$")
    """Currency that deployments are compared in, and budgets made without a currency are kept in."""
    prices: Path | None = None
    """Price file imported at start when it differs from the price book; none imports nothing."""
    database_seconds: float = Field(default=2.0, gt=0)
    """Longest that one call may wait for the database."""
    database_statement_seconds: float = Field(default=30.0, gt=0, le=86_400)
    """Longest that Postgres goes on with a statement whose caller is gone; never less than a call may wait."""
    database_lock_seconds: float = Field(default=5.0, gt=0, le=86_400)
    """Longest that a statement waits in Postgres for what another has locked; never less than a call may wait."""
    database_connections: int = Field(default=8, ge=1)
    """Most connections in the pool; six more stand beside it, a seventh while requests of old months are forgotten."""
    reservation_seconds: float = Field(default=900.0, gt=0)
    """How long a reservation holds money without being settled; longer than any answer takes."""
    sweep_seconds: float = Field(default=15.0, gt=0)
    """How often lapsed reservations are let go, rolling budgets moved on and thresholds looked at."""
    rollup_seconds: float = Field(default=5.0, gt=0)
    """How often the ledger is summed up; reports add what is newer by themselves."""
    ledger_months: int = Field(default=0, ge=0)
    """How many whole months of ledger rows are kept beside this one, at least 13; 0 keeps all. Sums stay for ever."""
    report_baseline: str = "openai/gpt-4-turbo"
    """Deployment whose price reports compare with, unless they are asked for another."""
    report_embedder: str = "local/multilingual-e5-small"
    """Deployment whose price the semantic cache's embeddings are counted at."""
    invoice_issuer: str = ""
    """Name and address of whoever runs the mesh, as invoices say it."""
    jwks_seconds: int = Field(default=300, ge=0)
    """How long the key set may be cached."""

    audit_key_file: Path | None = None
    """Private JWK (Ed25519) that signs audit checkpoints, made when missing; none uses the one of virtual keys."""
    audit_checkpoint_seconds: float = Field(default=60.0, gt=0)
    """How often audit chains that grew are sealed; what is younger can be cut off unnoticed."""
    audit_anchor_file: Path | None = None
    """File outside the database that every checkpoint is added to; none keeps no copy."""
    audit_anchor_url: SecretStr | None = None
    """URL outside the database that every checkpoint is posted to, as JSON lines; none keeps no copy."""

    violation_days: int = Field(default=365, ge=1, le=3660)
    """How long violations are kept, unless a tenant's policy says."""
    contents_key: SecretStr | None = None
    """32 bytes in base64 that wrap tenants' keys (`openssl rand -base64 32`), and after commas the keys before it; none
    keeps nobody's prompts."""
    alert_channels: Path | None = None
    """YAML file of channels that alerts go through; none writes them to the log."""
    alert_poll_seconds: float = Field(default=1.0, gt=0)
    """How often new alerts are looked for."""
    alert_days: int = Field(default=30, ge=1)
    """How long alerts are kept and tried again."""

    @field_validator("database_url")
    @classmethod
    def _is_postgres(cls, value: SecretStr) -> SecretStr:
        try:
            driver = make_url(value.get_secret_value()).drivername
        except ArgumentError:
            raise ValueError("is no database URL") from None
        if driver != "postgresql+psycopg":
            raise ValueError("must start with postgresql+psycopg://")
        return value

    @field_validator("ledger_months")
    @classmethod
    def _outlasts_every_budget(cls, value: int) -> int:
        if 0 < value < SHORTEST_LEDGER_MONTHS:
            raise ValueError(f"must be 0 or at least {SHORTEST_LEDGER_MONTHS}: budgets roll over up to a year")
        return value

    @field_validator("audit_anchor_url")
    @classmethod
    def _is_web_address(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith(("https://", "http://")):
            raise ValueError("must start with https:// (or http://)")
        return value

    @field_validator("contents_key")
    @classmethod
    def _is_master_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            MasterKey(value.get_secret_value())
        return value

    @field_validator("alert_channels")
    @classmethod
    def _are_channels(cls, value: Path | None) -> Path | None:
        read_channels(value)
        return value

    @field_validator("prices")
    @classmethod
    def _is_price_list(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None and "base_currency" in info.data:
            read_price_list(value, info.data["base_currency"])
        return value
