"""Mutual TLS between Envoy and the rooms, for processes that were given a certificate; plain connections otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grpc
from pydantic import model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

OWN_NAME = "localhost"
"""What a room's certificate holds beside `ROOM.llmmesh`, for probes from its own machine."""


class TlsSettings(BaseSettings):
    """Of a process, whichever room it is: all three files, or none."""

    model_config = SettingsConfigDict(env_prefix="LLMMESH_TLS_", frozen=True)

    certificate: Path | None = None
    """Certificate chain (PEM) that this process shows, as server and as client."""
    key: Path | None = None
    """Its private key (PEM)."""
    authority: Path | None = None
    """Certificates (PEM) of the authority whose certificates are trusted, and no other's."""
    envoy_name: str = "envoy.llmmesh"
    """Name that Envoy's certificate must hold, whatever the address it is reached by."""

    @model_validator(mode="after")
    def _all_or_none(self) -> TlsSettings:
        if len({self.certificate is None, self.key is None, self.authority is None}) > 1:
            raise ValueError("LLMMESH_TLS_CERTIFICATE, LLMMESH_TLS_KEY and LLMMESH_TLS_AUTHORITY go together")
        return self


@dataclass(frozen=True, slots=True)
class Tls:
    """What a process shows, and whom it trusts."""

    certificate: bytes
    key: bytes
    authority: bytes
    envoy_name: str

    def server_credentials(self) -> grpc.ServerCredentials:
        """Take clients with a certificate of the authority alone."""
        return grpc.ssl_server_credentials(
            [(self.key, self.certificate)], root_certificates=self.authority, require_client_auth=True
        )

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Trust servers of the authority alone, and show the certificate."""
        return grpc.ssl_channel_credentials(self.authority, self.key, self.certificate)


def own_tls() -> Tls | None:
    """The certificate of this process, from its environment; None when it was given none."""
    settings = TlsSettings()
    if settings.certificate is None or settings.key is None or settings.authority is None:
        return None
    return Tls(
        settings.certificate.read_bytes(),
        settings.key.read_bytes(),
        settings.authority.read_bytes(),
        settings.envoy_name,
    )
