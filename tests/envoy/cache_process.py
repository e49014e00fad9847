"""A cache room as a process: `python cache_process.py PORT` prints the port it bound."""

from __future__ import annotations

import asyncio
import logging
import sys

import grpc
from grpc_health.v1 import health, health_pb2_grpc

from llmmesh.cache.v1 import cache_pb2
from llmmesh.cache.v1.cache_pb2_grpc import CacheServiceServicer, add_CacheServiceServicer_to_server


class Cache(CacheServiceServicer):
    """Never has an answer."""

    async def LookupAnswer(self, request: object, context: object) -> cache_pb2.LookupAnswerResponse:
        return cache_pb2.LookupAnswerResponse()


async def main() -> None:
    """Serve until killed."""
    server = grpc.aio.server()
    add_CacheServiceServicer_to_server(Cache(), server)
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    sys.stdout.write(f"{server.add_insecure_port(f'127.0.0.1:{sys.argv[1]}')}\n")
    sys.stdout.flush()
    await server.start()
    await server.wait_for_termination()


logging.basicConfig(level=logging.WARNING)
asyncio.run(main())
