"""What every adapter that is known by tokens promises of them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from meshkit.deadline import enter_deadline
from services.router.deployment import Deployment
from services.router.endpoints import AnyDeployment
from services.router.providers.adapters import opened_providers
from services.router.providers.provider import Health, ProviderFailure
from tests.support.provider_cases import (
    BY_NAME,
    CASES,
    ENVIRONMENT,
    answer,
    opened,
    private_authority,
    question,
    routes_entry,
)
from tests.support.scripted_provider import scripted_provider

RENEWING = [case for case in CASES if case.renews]
LISTED = [BY_NAME[name] for name in ("cloudru", "gigachat", "gigachat_v2")]

_deployment: TypeAdapter[Deployment] = TypeAdapter(AnyDeployment)


@pytest.mark.parametrize("case", LISTED, ids=str)
async def test_a_token_that_a_health_check_finds_refused_is_replaced(case, authority):
    async with opened(case, authority, health_path="/models") as cloud:
        assert (await cloud.chat.condition()).health is Health.READY
        cloud.server.token = "revoked"
        assert (await cloud.chat.condition()).health is Health.READY
        assert cloud.server.counters.tokens_issued == 2


@pytest.mark.parametrize("case", RENEWING, ids=str)
async def test_a_token_that_many_wait_for_is_not_asked_for_under_the_deadline_of_one(case, authority):
    async with opened(case, authority) as cloud:
        cloud.server.set(token_ms=300)

        async def hurried() -> None:
            enter_deadline(0.1)
            await answer(cloud.chat, question())

        asking = asyncio.create_task(hurried())
        await cloud.server.until(lambda now: now.connections >= 1)
        assert (await answer(cloud.chat, question())).text == cloud.server.script.reply
        await asyncio.gather(asking, return_exceptions=True)
        assert cloud.server.counters.tokens_issued == 1


async def test_a_ca_file_that_was_wrong_at_first_counts_for_tokens_once_it_is_right(authority, tmp_path: Path):
    case, wrong = BY_NAME["gigachat"], private_authority(tmp_path)
    nobody: Any = None
    async with (
        scripted_provider(wire=case.wire(), tls=authority.server) as server,
        opened_providers(nobody, ENVIRONMENT, 100) as providers,
    ):
        entry = routes_entry(case, server, authority)
        before, after = (_deployment.validate_python(entry | {"ca_file": each.pem}) for each in (wrong, authority))
        with pytest.raises(ProviderFailure, match="Certificate"):
            await answer(providers.open([before])[before.name], question())
        assert (await answer(providers.open([after])[after.name], question())).text == server.script.reply
