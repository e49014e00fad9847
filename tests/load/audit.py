"""How fast audit events are appended: `python -m tests.load.audit --database-url URL`, an empty database.

Runs billing in this process and calls RecordEvents as a gateway does. Prints events per second.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from llmmesh.audit.v1 import audit_pb2
from llmmesh.chat.v1 import chat_pb2
from services.billing.config import BillingConfig
from tests.support.billing_room import Room, billing_room

SHA256 = "5" * 64


async def measure(url: str, *, calls: int, size: int, at_once: int, tenants: int) -> tuple[float, float]:
    """Append `calls` batches of `size` events, `at_once` under way; events per second, and per second of CPU."""
    with tempfile.TemporaryDirectory() as folder:
        config = BillingConfig.model_validate(
            {
                "database_url": url,
                "signing_key_file": Path(folder) / "key.json",
                "listen": "127.0.0.1:0",
                "metrics_listen": "",
                "database_seconds": 30,
            }
        )
        async with billing_room(config) as room:
            batches = iter([_batch(call, size, tenants) for call in range(calls)])
            started, cpu = time.perf_counter(), time.process_time()
            await asyncio.gather(*(_send(room, batches) for _ in range(at_once)))
            events = calls * size
            return events / (time.perf_counter() - started), events / (time.process_time() - cpu)


async def _send(room: Room, batches: Iterator[audit_pb2.RecordEventsRequest]) -> None:
    for batch in batches:
        await room.audit.RecordEvents(batch)


def _batch(call: int, size: int, tenants: int) -> audit_pb2.RecordEventsRequest:
    return audit_pb2.RecordEventsRequest(
        events=[
            audit_pb2.Event(
                request_id=f"{time.time_ns()}-{call}-{number}",
                tenant_id=f"tenant-{number % tenants}",
                key_id="key-0123456789abcdef01234567",
                model="smollm2-135m",
                outcome="answered",
                data_class=chat_pb2.DATA_CLASS_PUBLIC,
                guard_policy_version="0123456789abcdef",
                tenant_policy_version="0123456789abcdef",
                provider="local",
                deployment="local/smollm2-135m",
                candidates=["local/smollm2-135m"],
                cache_status="miss",
                cost_micros=1000,
                currency_code="RUB",
                finish_reason=chat_pb2.FINISH_REASON_STOP,
                prompt_sha256=SHA256,
                answer_sha256=SHA256,
            )
            for number in range(size)
        ]
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database-url", required=True)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--size", type=int, default=200, help="events in a call (a gateway sends up to 200)")
    parser.add_argument("--at-once", type=int, default=4, help="calls under way (gateways)")
    parser.add_argument("--tenants", type=int, default=20)
    arguments = parser.parse_args()
    rate, per_cpu = asyncio.run(
        measure(
            arguments.database_url,
            calls=arguments.calls,
            size=arguments.size,
            at_once=arguments.at_once,
            tenants=arguments.tenants,
        )
    )
    print(f"{rate:.0f} events/s, {per_cpu:.0f} per second of CPU of billing and its caller together")


if __name__ == "__main__":
    main()
