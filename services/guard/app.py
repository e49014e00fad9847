"""Puts the guard together."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, cast

from llmmesh.guard.v1.guard_pb2_grpc import add_GuardServiceServicer_to_server
from llmmesh.inference.v1.inference_pb2_grpc import InferenceServiceStub
from llmmesh.tenant.v1.tenant_pb2_grpc import TenantServiceStub
from meshkit.background import in_background
from meshkit.client import connect
from meshkit.log import get_logger
from meshkit.reloading import LoadMeters, Reloader
from meshkit.revocation import following_revocations
from meshkit.server import Mount, running
from services.guard import azure, llama_guard
from services.guard.azure import AzureContentSafety
from services.guard.billing import RuleStore
from services.guard.classifier import Head
from services.guard.config import GuardConfig
from services.guard.escalation import Budgets, Escalation, Judge
from services.guard.inference import Embeddings, GuardModel
from services.guard.kept import Kept
from services.guard.layers import RuleLayers, rule_layers
from services.guard.llama_guard import LlamaGuard
from services.guard.meaning import MeaningHead
from services.guard.metrics import PACKS_LOADS, PACKS_REFUSED
from services.guard.names import NameScanner
from services.guard.packfiles import PacksInvalid, pack_files
from services.guard.second_look import SecondLook
from services.guard.servicer import GuardServicer

if TYPE_CHECKING:
    from llmmesh.inference.v1.inference_pb2_grpc import InferenceServiceAsyncStub
    from llmmesh.tenant.v1.tenant_pb2_grpc import TenantServiceAsyncStub

log = get_logger()


@asynccontextmanager
async def guard(config: GuardConfig) -> AsyncIterator[int]:
    """Run the guard; yields the port it listens on.

    Raises:
        PacksInvalid: If a rule pack cannot be used; every mistake is logged.
    """
    kept, names = Kept(config.cache), NameScanner()
    meaning = MeaningHead.load() if config.embedding else None
    reloader = _loaded(config, lambda: rule_layers(config.packs, kept, names, meaning.doubts if meaning else None))
    async with (
        _escalation(config, meaning, reloader) as escalation,
        connect(config.mesh_target, TenantServiceStub) as tenants,
    ):
        rules = RuleStore(cast("TenantServiceAsyncStub", tenants))
        servicer = GuardServicer(reloader, escalation, rules, config)
        mount = Mount(add_GuardServiceServicer_to_server, servicer)
        async with (
            in_background(reloader.watch()),
            following_revocations(config.mesh_target) as revoked,
            running([mount], config, room="guard", revoked=revoked) as port,
        ):
            yield port


@asynccontextmanager
async def _escalation(
    config: GuardConfig, meaning: MeaningHead | None, reloader: Reloader[RuleLayers]
) -> AsyncIterator[Escalation]:
    """The slower layers that are set up, our own before the cloud; the log says which are not."""
    async with AsyncExitStack() as stack:
        target = config.inference_target or config.mesh_target
        stub = await stack.enter_async_context(connect(target, InferenceServiceStub))
        inference = cast("InferenceServiceAsyncStub", stub)
        judges: list[Judge] = []
        if config.llama_guard_model:
            judges.append(await _llama_guard(stack, inference, config))
        else:
            told = "no LLMMESH_GUARD_LLAMA_GUARD_MODEL: the classifier carries what a guard model would"
            log.info("layer_absent", layer=llama_guard.LAYER, told=told)
        if config.azure_endpoint:
            from aiohttp import ClientSession  # 8 MB, for those who ask a cloud only

            http = await stack.enter_async_context(ClientSession())
            key = config.azure_key.get_secret_value()
            judges.append(AzureContentSafety(http, config.azure_endpoint, key, config.azure_region))
        else:
            log.info("layer_absent", layer=azure.LAYER, told="no LLMMESH_GUARD_AZURE_ENDPOINT: no cloud is asked")
        second_look = _second_look(config, inference, meaning, reloader) if meaning else None
        budgets = Budgets(config.escalation_seconds, config.tier_escalation_seconds)
        yield Escalation(second_look, judges, budgets, random.SystemRandom())


def _second_look(
    config: GuardConfig, inference: InferenceServiceAsyncStub, meaning: MeaningHead, reloader: Reloader[RuleLayers]
) -> SecondLook:
    embeddings = Embeddings(inference, meaning.adapter, config.escalation_seconds)

    def words(text: str) -> float:
        return reloader.current.classifier.score(text)[0]

    return SecondLook(meaning, embeddings.of, words, Head.load().block_from)


async def _llama_guard(stack: AsyncExitStack, inference: InferenceServiceAsyncStub, config: GuardConfig) -> LlamaGuard:
    model = GuardModel(inference, config.llama_guard_model)
    await stack.enter_async_context(in_background(model.announce()))
    return LlamaGuard(model.continued, config.llama_guard_block_from, config.llama_guard_unsure_from)


def _loaded(config: GuardConfig, load: Callable[[], RuleLayers]) -> Reloader[RuleLayers]:
    meters = LoadMeters(PACKS_LOADS, PACKS_REFUSED)
    try:
        reloader = Reloader("packs", lambda: pack_files(config.packs), load, meters, config.packs_poll_seconds)
    except PacksInvalid as error:
        for mistake in error.mistakes:
            log.error("pack_mistake", mistake=mistake)
        raise
    policy = reloader.current.policy
    log.info("policy_loaded", policy_version=policy.version, rules=policy.rule_count)
    return reloader
