"""Writes the gRPC frame of a service's request, for h2load and other tools: `python -m tests.load.frame cache`."""

from __future__ import annotations

import os
import sys

from google.protobuf.message import Message

from tests.load.rpcs import read_rpc


def framed(message: Message) -> bytes:
    """A message as it travels in HTTP/2 DATA: not compressed, its length, its bytes."""
    payload = message.SerializeToString()
    return b"\0" + len(payload).to_bytes(4, "big") + payload


if __name__ == "__main__":
    sys.stdout.buffer.write(framed(read_rpc(sys.argv[1], os.environ).request()))
