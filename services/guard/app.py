"""Puts the guard together."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from llmmesh.guard.v1.guard_pb2_grpc import add_GuardServiceServicer_to_server
from meshkit.log import get_logger
from meshkit.server import Mount, running
from services.guard.azure import LAYER, AzureContentSafety
from services.guard.cascade import Cascade
from services.guard.config import GuardConfig
from services.guard.escalation import Escalation
from services.guard.kept import Kept
from services.guard.layers import attack_layers
from services.guard.names import NameScanner
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
    kept = Kept(config.cache)
    policy = _policy(config, kept)
    cascades = {
        Direction.INPUT: Cascade([NameScanner(), *attack_layers(policy, kept)]),
        Direction.OUTPUT: Cascade([policy.scanners[Direction.OUTPUT]]),
    }
    async with _azure(config) as azure:
        escalation = Escalation(azure, config.escalation_seconds, random.SystemRandom())
        servicer = GuardServicer(policy, cascades, escalation, config)
        async with running([Mount(add_GuardServiceServicer_to_server, servicer)], config, room="guard") as port:
            yield port


@asynccontextmanager
async def _azure(config: GuardConfig) -> AsyncIterator[AzureContentSafety | None]:
    if not config.azure_endpoint:
        log.info("layer_absent", layer=LAYER, told="no LLMMESH_GUARD_AZURE_ENDPOINT: the classifier decides alone")
        yield None
        return
    from aiohttp import ClientSession  # 8 MB, for those who ask a cloud only

    async with ClientSession() as http:
        yield AzureContentSafety(http, config.azure_endpoint, config.azure_key.get_secret_value())


def _policy(config: GuardConfig, kept: Kept) -> Policy:
    try:
        policy = load_policy(config.packs, kept)
    except PacksInvalid as error:
        for mistake in error.mistakes:
            log.error("pack_mistake", mistake=mistake)
        raise
    log.info("policy_loaded", policy_version=policy.version, rules=policy.rule_count)
    return policy
