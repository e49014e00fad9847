"""What the guard is shown, what its verdict means, what is written down."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from llmmesh.cache.v1 import cache_pb2
from llmmesh.chat.v1 import chat_pb2
from llmmesh.gateway.v1 import gateway_pb2
from llmmesh.guard.v1 import guard_pb2
from meshkit.errors import (
    BillingUnavailable,
    BudgetExceeded,
    EgressRefused,
    FieldInvalid,
    PromptBlocked,
    ProviderStreamBroken,
)
from meshkit.identity import Identity
from services.gateway.accounts import Accounts
from services.gateway.caller import stated_data_class
from services.gateway.exchange import Exchange
from services.gateway.screening import admitted, masked_prompt, routed_class, shown_messages
from services.gateway.validation import check_json, check_prompt

ADA = Identity("acme", "key-1", request_id="r1")
HELLO = chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content=[chat_pb2.ContentPart(text="hello")])


def verdict(action: Any, *rules: str, **more: Any) -> guard_pb2.Verdict:
    found = [guard_pb2.Detection(rule=rule) for rule in rules]
    return guard_pb2.Verdict(action=action, detections=found, policy_version="v1", **more)


def test_the_guard_sees_everything_that_reaches_the_model() -> None:
    options = chat_pb2.GenerationOptions(
        tools_json=['{"t":1}'], tool_choice_json='"auto"', response_format_json='{"r":1}', extra_json={"k": "[1]"}
    )
    shown = shown_messages(chat_pb2.ChatPrompt(messages=[HELLO], options=options))
    assert shown[0] == HELLO
    assert [part.raw_json for part in shown[1].content] == ['{"t":1}', '"auto"', '{"r":1}', "[1]"]


def test_a_bare_conversation_is_shown_as_it_is() -> None:
    assert shown_messages(chat_pb2.ChatPrompt(messages=[HELLO])) == [HELLO]


def test_a_block_names_its_rules_and_risk() -> None:
    with pytest.raises(PromptBlocked) as caught:
        admitted(verdict(guard_pb2.ACTION_BLOCK, "b", "a", "b", risk_level=guard_pb2.RISK_LEVEL_HIGH))
    assert caught.value.metadata == {"risk": "high", "rules": "a,b"}


def test_only_allow_lets_a_prompt_pass() -> None:
    admitted(verdict(guard_pb2.ACTION_ALLOW))
    with pytest.raises(PromptBlocked):
        admitted(verdict(guard_pb2.ACTION_MASK))
    admitted(verdict(guard_pb2.ACTION_MASK), masked=True)


def test_sensitive_data_and_what_nobody_judged_is_not_cacheable() -> None:
    exchange = Exchange(ADA, "m")
    exchange.judged(verdict(guard_pb2.ACTION_ALLOW, data_class=chat_pb2.DATA_CLASS_INTERNAL))
    assert exchange.cacheable
    exchange.unguarded = True
    assert not exchange.cacheable
    exchange.unguarded = False
    exchange.judged(verdict(guard_pb2.ACTION_ALLOW, data_class=chat_pb2.DATA_CLASS_CONFIDENTIAL))
    exchange.judged(verdict(guard_pb2.ACTION_ALLOW, data_class=chat_pb2.DATA_CLASS_PUBLIC))
    assert exchange.data_class == chat_pb2.DATA_CLASS_CONFIDENTIAL
    assert not exchange.cacheable


@pytest.mark.parametrize("direction", ["input", "output"])
def test_what_a_layer_let_pass_because_it_was_away_is_not_cacheable(direction: Any) -> None:
    exchange = Exchange(ADA, "m")
    exchange.judged(verdict(guard_pb2.ACTION_ALLOW, "words.found"))
    assert exchange.cacheable
    exchange.judged(verdict(guard_pb2.ACTION_ALLOW, "llama_guard.failed_open"), direction)
    assert not exchange.cacheable


def test_an_answer_judged_by_another_policy_than_its_prompt_is_not_cacheable() -> None:
    exchange = Exchange(ADA, "m")
    exchange.judged(verdict(guard_pb2.ACTION_ALLOW))
    exchange.judged(guard_pb2.Verdict(action=guard_pb2.ACTION_ALLOW, policy_version="v2"))
    assert not exchange.cacheable


def test_what_nobody_judged_is_routed_as_internal() -> None:
    assert routed_class(Exchange(ADA, "m")) == chat_pb2.DATA_CLASS_INTERNAL


class Books:
    """The accounts and what was put into them."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.records: list[Any] = []
        self.contents: list[Any] = []
        self.written: list[Any] = []
        self.uses: list[Any] = []
        self.billing_away = False
        self.accounts = Accounts(self._event, self._record, self._use, self._contents, self._now)

    def _event(self, event: Any) -> bool:
        self.events.append(event)
        return True

    async def _now(self, events: Sequence[Any]) -> None:
        if self.billing_away:
            raise BillingUnavailable("away")
        self.written += events

    def _contents(self, contents: Any) -> bool:
        self.contents.append(contents)
        return True

    def _record(self, record: Any) -> bool:
        self.records.append(record)
        return True

    def _use(self, use: Any) -> bool:
        self.uses.append(use)
        return True

    async def after(self, error: BaseException | None = None, **known: Any) -> Any:
        exchange = Exchange(ADA, "m", prompt_texts=["hello"])
        for name, value in known.items():
            setattr(exchange, name, value)
        if error is None:
            async with self.accounts.recorded(exchange):
                pass
        else:
            with pytest.raises(type(error)):
                async with self.accounts.recorded(exchange):
                    raise error
        return [*self.written, *self.events][-1]


async def test_an_answer_is_written_down_without_its_text() -> None:
    event = await Books().after(answer_texts=["The ", "fox."], guard_policy_version="v1", deployment="a/m")
    assert (event.outcome, event.reason, event.request_id, event.tenant_id) == ("answered", "", "r1", "acme")
    assert event.prompt_sha256 == "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    assert len(event.answer_sha256) == 64
    assert "fox" not in str(event)


@pytest.mark.parametrize(
    ("error", "outcome", "reason"),
    [
        (PromptBlocked("no"), "blocked", "PROMPT_BLOCKED"),
        (BudgetExceeded("spent"), "refused", "BUDGET_EXCEEDED"),
        (ProviderStreamBroken("gone"), "failed", "PROVIDER_STREAM_BROKEN"),
        (EgressRefused("stopped"), "failed", "EGRESS_REFUSED"),
        (ZeroDivisionError(), "failed", "INTERNAL"),
        (asyncio.CancelledError(), "cancelled", ""),
        (GeneratorExit(), "cancelled", ""),
    ],
)
async def test_every_other_end_is_written_down_too(error: BaseException, outcome: str, reason: str) -> None:
    event = await Books().after(error)
    assert (event.outcome, event.reason, event.answer_sha256) == (outcome, reason, "")


async def test_a_stopped_answer_is_called_stopped() -> None:
    assert (await Books().after(finish_reason=chat_pb2.FINISH_REASON_CONTENT_FILTER)).outcome == "stopped"


async def test_an_unjudged_answer_names_no_policy() -> None:
    assert (await Books().after(unguarded=True, guard_policy_version="v1")).guard_policy_version == ""


async def test_a_blocked_prompt_is_written_before_its_caller_hears_of_it() -> None:
    books = Books()
    exchange = Exchange(ADA, "m", prompt_texts=["hello"])
    exchange.judged(verdict(guard_pb2.ACTION_BLOCK, "injection.a"))
    with pytest.raises(PromptBlocked):
        async with books.accounts.recorded(exchange):
            raise PromptBlocked("no")
    (event,) = books.written
    assert (event.outcome, event.findings[0].rule, event.findings[0].direction) == ("blocked", "injection.a", "input")
    assert books.events == []


async def test_a_blocked_prompt_is_written_later_when_billing_is_away() -> None:
    books = Books()
    books.billing_away = True
    assert (await books.after(PromptBlocked("no"))).outcome == "blocked"
    assert len(books.events) == 1


async def test_what_the_guard_finds_on_both_sides_is_kept_apart() -> None:
    exchange = Exchange(ADA, "m")
    exchange.judged(verdict(guard_pb2.ACTION_ALLOW, "card", "card", "e-mail"))
    exchange.judged(verdict(guard_pb2.ACTION_ALLOW, "card"), "output")
    assert list(exchange.findings) == [("card", "input"), ("e-mail", "input"), ("card", "output")]


def test_of_what_one_rule_finds_the_worst_is_written_down() -> None:
    severities = (guard_pb2.RISK_LEVEL_LOW, guard_pb2.RISK_LEVEL_CRITICAL, guard_pb2.RISK_LEVEL_MEDIUM)
    exchange = Exchange(ADA, "m")
    exchange.noted([guard_pb2.Detection(rule="injection.a", severity=each) for each in severities], "input")
    assert [(each.rule, each.severity) for each in exchange.findings.values()] == [("injection.a", "critical")]


async def test_contents_are_kept_only_of_those_who_want_it() -> None:
    books = Books()
    await books.after(answer_texts=["fox"])
    assert books.contents == []
    await books.after(answer_texts=["The ", "fox"], keeps_contents=True)
    (kept,) = books.contents
    assert (kept.tenant_id, kept.request_id, kept.prompt, kept.answer) == ("acme", "r1", "hello", "The fox")


async def test_only_cached_answers_are_put_into_the_ledger_here() -> None:
    books = Books()
    await books.after(cache_status=gateway_pb2.CACHE_STATUS_MISS)
    assert books.records == []
    await books.after(cache_status=gateway_pb2.CACHE_STATUS_EXACT, usage=chat_pb2.TokenUsage(output_tokens=3))
    (record,) = books.records
    assert (record.cache_status, record.usage.output_tokens, record.cost_micros) == ("exact", 3, 0)


async def test_the_cache_learns_what_it_did_for_a_request_that_asked_it() -> None:
    books = Books()
    await books.after(cache_status=gateway_pb2.CACHE_STATUS_BYPASS)
    await books.after(cache_status=gateway_pb2.CACHE_STATUS_MISS)
    first = cache_pb2.CachedAnswer(entry_id="m:1", request_id="r0", cost_micros=5, currency_code="RUB")
    first.provider_time.FromSeconds(60)
    await books.after(cache_status=gateway_pb2.CACHE_STATUS_SEMANTIC, cached=first, similarity=0.5)
    miss, hit = books.uses
    assert (miss.outcome, miss.answered_request_id) == ("miss", "")
    assert (hit.outcome, hit.entry_id, hit.answered_request_id, hit.similarity) == ("semantic", "m:1", "r0", 0.5)
    assert (hit.saved_micros, hit.currency_code) == (5, "RUB")
    assert 59 <= hit.saved_time.ToMilliseconds() / 1000 <= 60


def test_the_stricter_of_what_a_caller_says_counts() -> None:
    header = [("x-llmmesh-data-class", "Confidential")]
    assert stated_data_class(header) == chat_pb2.DATA_CLASS_CONFIDENTIAL
    assert stated_data_class(header, chat_pb2.DATA_CLASS_SENSITIVE) == chat_pb2.DATA_CLASS_SENSITIVE
    assert stated_data_class([], chat_pb2.DATA_CLASS_INTERNAL) == chat_pb2.DATA_CLASS_INTERNAL
    with pytest.raises(FieldInvalid):
        stated_data_class([("x-llmmesh-data-class", "harmless")])


def masked_to(*messages: Any) -> guard_pb2.MaskedPrompt:
    originals = [guard_pb2.Placeholder(text="[EMAIL_1]", original="a@b.ru")]
    return guard_pb2.MaskedPrompt(messages=messages, placeholders=originals, data_class=chat_pb2.DATA_CLASS_PUBLIC)


def test_what_is_hidden_in_messages_is_sent_instead() -> None:
    hidden = chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content=[chat_pb2.ContentPart(text="[EMAIL_1]")])
    masked = masked_prompt(chat_pb2.ChatPrompt(messages=[HELLO]), masked_to(hidden))
    assert masked is not None
    assert (list(masked.messages), masked.originals) == ([hidden], {"[EMAIL_1]": "a@b.ru"})


def test_what_would_have_to_be_hidden_in_the_options_is_not_masked() -> None:
    options = chat_pb2.GenerationOptions(tools_json=['{"to":"a@b.ru"}'])
    hidden = chat_pb2.ChatMessage(role=chat_pb2.ROLE_SYSTEM, content=[chat_pb2.ContentPart(raw_json="{}")])
    assert masked_prompt(chat_pb2.ChatPrompt(messages=[HELLO], options=options), masked_to(HELLO, hidden)) is None


def test_what_a_rule_wants_hidden_in_the_options_is_not_sent_at_all() -> None:
    options = chat_pb2.GenerationOptions(tools_json=['{"to":"falcon"}'])
    hidden = chat_pb2.ChatMessage(role=chat_pb2.ROLE_SYSTEM, content=[chat_pb2.ContentPart(raw_json="{}")])
    masked = masked_to(HELLO, hidden)
    masked.required = True
    with pytest.raises(PromptBlocked):
        masked_prompt(chat_pb2.ChatPrompt(messages=[HELLO], options=options), masked)


def typed(**change: Any) -> chat_pb2.ChatPrompt:
    return chat_pb2.ChatPrompt(**{"model": "m", "messages": [HELLO], **change})


def check(prompt: chat_pb2.ChatPrompt) -> None:
    check_prompt(prompt, str)
    check_json(prompt, str)


def faulty(prompt: chat_pb2.ChatPrompt) -> str:
    with pytest.raises(FieldInvalid) as caught:
        check(prompt)
    return caught.value.metadata["field"]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"temperature": float("nan")}, "temperature"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"tools_json": ["{}", "{"]}, "tools_json[1]"),
        ({"tools_json": ["5"]}, "tools_json[0]"),
        ({"tool_choice_json": "auto"}, "tool_choice_json"),
        ({"response_format_json": "{]"}, "response_format_json"),
        ({"extra_json": {"top_k": "4 0"}}, "extra_json[top_k]"),
        ({"extra_json": {"messages": "[]"}}, "extra_json[messages]"),
        ({"extra_json": {"max_tokens": "100000"}}, "extra_json[max_tokens]"),
    ],
)
async def test_typed_options_that_break_a_rule_are_named(options: dict[str, Any], field: str) -> None:
    assert faulty(typed(options=chat_pb2.GenerationOptions(**options))) == field


async def test_typed_messages_that_break_a_rule_are_named() -> None:
    nobody = chat_pb2.ChatMessage(content=HELLO.content)
    odd = chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content=[chat_pb2.ContentPart(raw_json="[1]")])
    assert faulty(typed(messages=[])) == "messages"
    assert faulty(typed(model="")) == "model"
    assert faulty(typed(messages=[HELLO, nobody])) == "messages[1].role"
    assert faulty(typed(messages=[odd])) == "messages[0].content"


async def test_a_typed_prompt_with_sound_json_passes() -> None:
    options = chat_pb2.GenerationOptions(
        temperature=2, tools_json=['{"a":1}'], tool_choice_json='"auto"', extra_json={"top_k": "40"}
    )
    check(typed(options=options))
