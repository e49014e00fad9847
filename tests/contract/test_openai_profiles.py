"""What each of those who speak OpenAI's API has of its own."""

from __future__ import annotations

import pytest

from meshkit.identity import Identity, acting_as
from services.router.providers.provider import FailureKind, Health, ProviderFailure
from tests.support.provider_cases import BY_NAME, Said, answer, opened, question


async def test_qwen_thinks_apart_from_what_it_says(authority):
    async with opened(BY_NAME["dashscope"], authority) as qwen:
        qwen.server.set(reasoning="hm let me see")
        said = await answer(qwen.chat, question())
    assert (said.reasoning, said.text) == ("hm let me see", qwen.server.script.reply)
    assert (said.ended.usage.output_tokens, said.ended.usage.reasoning_tokens) == (9, 4)


@pytest.mark.parametrize(("effort", "thinks"), [('"high"', True), ('"none"', False)])
async def test_the_effort_asked_for_turns_qwens_thinking_on_or_off(authority, effort, thinks):
    async with opened(BY_NAME["dashscope"], authority, defaults={"enable_thinking": not thinks}) as qwen:
        await answer(qwen.chat, question(extra_json={"reasoning_effort": effort}))
        assert qwen.sent["enable_thinking"] is thinks
        assert "reasoning_effort" not in qwen.sent


async def test_defaults_of_the_routes_are_sent_unless_the_caller_says_otherwise(authority):
    defaults = {"enable_thinking": False, "thinking_budget": 10, "model": "dearer", "n": 5}
    async with opened(BY_NAME["dashscope"], authority, defaults=defaults) as qwen:
        await answer(qwen.chat, question(extra_json={"thinking_budget": "99"}))
        sent = qwen.sent
    assert (sent["enable_thinking"], sent["thinking_budget"], sent["model"]) == (False, 99, "model-of-theirs")


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (429, "rate_limit_exceeded", FailureKind.THROTTLED),
        (429, "insufficient_quota", FailureKind.CREDENTIAL),
        (400, "Arrearage", FailureKind.CREDENTIAL),
        (400, "data_inspection_failed", FailureKind.REFUSED),
        (400, "context_length_exceeded", FailureKind.TOO_LONG),
    ],
)
async def test_codes_tell_more_than_statuses(authority, status, code, kind):
    async with opened(BY_NAME["openai"], authority) as cloud:
        cloud.server.set(fail_next=1, fail_status=status, error_code=code)
        with pytest.raises(ProviderFailure) as caught:
            await answer(cloud.chat, question())
    assert caught.value.kind is kind
    assert code in caught.value.public


async def test_vllm_keeps_the_cached_prompts_of_tenants_apart(authority):
    salts = []
    async with opened(BY_NAME["vllm"], authority) as vllm:
        for tenant in ("acme", "acme", "rival"):
            with acting_as(Identity(tenant_id=tenant)):
                await answer(vllm.chat, question(extra_json={"cache_salt": '"guessed"'}))
            salts.append(vllm.sent["cache_salt"])
    assert salts[0] == salts[1] != salts[2]
    assert "acme" not in salts[0]


async def test_vllm_tells_its_figures_with_every_chunk(authority):
    async with opened(BY_NAME["vllm"], authority) as vllm:
        await answer(vllm.chat, question())
        assert vllm.sent["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}


async def test_an_answer_that_vllms_engine_dropped_is_a_failure_after_what_it_said(authority):
    async with opened(BY_NAME["vllm"], authority) as vllm:
        vllm.server.set(finish_reason="abort")
        said = Said()
        with pytest.raises(ProviderFailure) as caught:
            await answer(vllm.chat, question(), said)
        assert (caught.value.kind, said.text) == (FailureKind.UNAVAILABLE, vllm.server.script.reply)


async def test_vllm_is_asked_how_it_is(authority):
    async with opened(BY_NAME["vllm"], authority, base_url="http://127.0.0.1:1/v1") as vllm:
        assert (await vllm.chat.condition()).health is Health.UNAVAILABLE


async def test_a_failing_token_request_of_cloudru_gives_nothing_away(authority):
    async with opened(BY_NAME["cloudru"], authority) as cloud:
        cloud.server.set(token_status=403)
        with pytest.raises(ProviderFailure) as caught:
            await answer(cloud.chat, question())
    assert caught.value.kind is FailureKind.CREDENTIAL
    assert "a2V5" not in str(caught.value) + caught.value.public
