"""The page that Prometheus reads."""

from __future__ import annotations

import socket
from urllib.request import urlopen

import pytest

from meshkit.metrics import exposed


def speaks_ipv6() -> bool:
    """Whether this machine does."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


WITH_IPV6 = pytest.mark.skipif(not speaks_ipv6(), reason="this machine has no IPv6")


@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("[::1]", marks=WITH_IPV6)])
def test_it_is_served_at_addresses_of_both_kinds(host: str) -> None:
    with exposed(f"{host}:0") as port, urlopen(f"http://{host}:{port}/metrics", timeout=5) as page:
        assert b"grpc_server_handled_total" in page.read()
