"""Puts the guard together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from llmmesh.guard.v1.guard_pb2_grpc import add_GuardServiceServicer_to_server
from meshkit.log import get_logger
from meshkit.server import Mount, running
from services.guard.cascade import Cascade
from services.guard.config import GuardConfig
from services.guard.kept import Kept
from services.guard.packfiles import PacksInvalid
from services.guard.policy import Policy, load_policy
from services.guard.servicer import GuardServicer
from services.guard.verdict import Direction

log = get_logger()


@asynccontextmanager
async def guard(config: GuardConfig) -> AsyncIterator[int]:
    """Run the guard; yields the port it listens on.

    Raises:
        PacksInvalid: If a rule pack cannot be used; every mistake is logged.
    """
    policy = _policy(config)
    cascades = {direction: Cascade([policy.scanners[direction]]) for direction in Direction}
    servicer = GuardServicer(policy, cascades, config)
    async with running([Mount(add_GuardServiceServicer_to_server, servicer)], config, room="guard") as port:
        yield port


def _policy(config: GuardConfig) -> Policy:
    try:
        policy = load_policy(config.packs, Kept(config.cache))
    except PacksInvalid as error:
        for mistake in error.mistakes:
            log.error("pack_mistake", mistake=mistake)
        raise
    log.info("policy_loaded", policy_version=policy.version, rules=policy.rule_count)
    return policy
