"""`python -m meshkit.probe HOST:PORT`: exit 0 when the room's gRPC health says SERVING, 1 when not."""

from __future__ import annotations

import sys
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from meshkit.tls import OWN_NAME, own_tls


def serving(target: str, timeout_seconds: float = 3.0) -> bool:
    """Whether the room at `target` is SERVING."""
    with own_channel(target) as channel:
        try:
            stub: Any = health_pb2_grpc.HealthStub(channel)  # its type stub forgets the methods
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout_seconds)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def own_channel(target: str) -> grpc.Channel:
    """A channel to a room on this machine, certified as this process is."""
    tls = own_tls()
    if tls is None:
        return grpc.insecure_channel(target)
    return grpc.secure_channel(target, tls.channel_credentials(), (("grpc.ssl_target_name_override", OWN_NAME),))


if __name__ == "__main__":
    sys.exit(0 if serving(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:50051") else 1)
