"""`llmmesh-cache forget-reports`: a tenant's bound on wrong hits begins anew."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys

from meshkit.dependency import Unavailable
from services.cache.config import CacheConfig
from services.cache.evidence import RIGHT, WRONG
from services.cache.use_records import Reported, use_records

CONNECT_SECONDS = 1.0
REDIS_URL = "LLMMESH_CACHE_REDIS_URL"


def forget_reports_parser(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    parser.description = (
        "Forget what a tenant reported of its semantic hits, right and wrong: its threshold is again that of the "
        "calibration set alone, and entries that were reported wrong may serve once stored again. Running cache "
        "services take it over within LLMMESH_CACHE_EVIDENCE_SECONDS; statistics stay. The exit status is 1 when Redis "
        "holds no reports of the tenant, or cannot be reached."
    )
    parser.add_argument("--tenant", required=True, help="whose reports they are")
    usual = os.environ.get(REDIS_URL) or CacheConfig.model_fields["redis_url"].default
    parser.add_argument(
        "--redis", default=usual, help=f"the Redis of the cache services ({REDIS_URL}, else the local one)"
    )
    parser.set_defaults(run=_run)


def _run(given: argparse.Namespace) -> None:
    try:
        told = asyncio.run(_forgotten(given.redis, given.tenant))
    except (Unavailable, ValueError) as error:  # the latter of a URL that is none
        sys.exit(f"llmmesh-cache: {error}")
    right, wrong = _reports(told, RIGHT), _reports(told, WRONG)
    if not right + wrong:
        sys.exit(f"llmmesh-cache: Redis holds no reports of tenant {given.tenant!r}")
    print(
        f"forgotten of tenant {given.tenant!r}: {right} right reports, {wrong} wrong ones, "
        f"{len(told.disputed)} disputed entries; running cache services follow within seconds"
    )


async def _forgotten(url: str, tenant_id: str) -> Reported:
    async with use_records(url, timeout_seconds=CONNECT_SECONDS, kept_seconds=1) as records:
        return await records.forget_reports(tenant_id)


def _reports(told: Reported, verdict: str) -> int:
    return sum(count for field, count in told.counts.items() if field.startswith(verdict))
