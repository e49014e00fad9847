"""Ports for servers whose address must be known before they start."""

from __future__ import annotations

import random
import socket

LENT_FROM = 32_768
"""Linux lends the ports from here on to clients that connect: a port from among them may be taken at any moment."""


def free_port() -> int:
    """A TCP port that nobody listens on, and no client is lent."""
    while True:
        port = random.randrange(20_000, LENT_FROM)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
