"""Who must show which certificate: rooms and Envoy to each other, websites to Envoy."""

from __future__ import annotations

from deploy.envoy.schema import Node, extension
from deploy.envoy.topology import Tls

_SOCKET = "envoy.transport_sockets.tls"


def to_room(tls: Tls, room: str) -> Node:
    """Connections to a room, which must be certified as `ROOM.llmmesh`: no room passes for another."""
    name = f"{room}.llmmesh"
    matcher = {"san_type": "DNS", "matcher": {"exact": name}}
    return extension(
        _SOCKET,
        "extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        sni=name,
        common_tls_context=_own(tls, match_typed_subject_alt_names=[matcher]),
    )


def from_rooms(tls: Tls) -> Node:
    """Connections from rooms, each of which must show a certificate of the authority."""
    return extension(
        _SOCKET,
        "extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        require_client_certificate=True,
        common_tls_context=_own(tls),
    )


def to_website(host: str, ca_file: str) -> Node:
    """TLS to a host that an authority of the file vouches for, by this very name."""
    return extension(
        _SOCKET,
        "extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        sni=host,
        auto_sni_san_validation=True,
        common_tls_context={"validation_context": {"trusted_ca": {"filename": ca_file}}},
    )


def _own(tls: Tls, **validation: object) -> Node:
    return {
        "tls_certificates": [
            {"certificate_chain": {"filename": tls.certificate}, "private_key": {"filename": tls.key}}
        ],
        "validation_context": {"trusted_ca": {"filename": tls.authority}, **validation},
        "alpn_protocols": ["h2"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
    }
