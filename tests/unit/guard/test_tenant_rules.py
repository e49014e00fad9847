"""Tenants' own rules: held compiled, fetched when a version is named that is not held, tried before they are kept."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import Any

import pytest

from meshkit.errors import FieldInvalid, GuardUnavailable
from services.guard.rulebook import Rulebook
from services.guard.stream import AnswerWatch
from services.guard.tenant_rules import KeptRules, TenantRules
from services.guard.trials import Trials, Words
from services.guard.verdict import Direction


def rule(pattern: str = "falcon", **more: Any) -> Words:
    words = {
        "id": "tenant.codename",
        "category": "confidential",
        "languages": ["any"],
        "direction": "both",
        "severity": "medium",
        "action": "mask",
        "data_class": "public",
        "patterns": [pattern],
        "case_sensitive": False,
        "max_length": 20,
        "must_match": ["the falcon"],
        "must_not_match": ["the eagle"],
    }
    return {**words, **more}


class Shelf:
    """Where rules are kept, counting who asks."""

    def __init__(self, *rules: Words) -> None:
        self.kept = KeptRules.of(rules)
        self.asked: list[str] = []

    async def get(self, tenant_id: str) -> KeptRules:
        self.asked.append(tenant_id)
        return self.kept


def found_by(book: Rulebook | None, text: str) -> list[str]:
    assert book is not None
    return [found.rule for found in book.scanners[Direction.INPUT].scan(text)]


async def test_a_tenant_without_rules_asks_for_nothing() -> None:
    shelf = Shelf()
    assert await TenantRules(shelf.get, 2).of("acme", "") is None
    assert shelf.asked == []


async def test_rules_are_fetched_once_for_all_who_name_them_at_once() -> None:
    shelf = Shelf(rule())
    rules = TenantRules(shelf.get, 2)
    books = await asyncio.gather(*(rules.of("acme", shelf.kept.version) for _ in range(5)))
    assert len({id(book) for book in books}) == 1
    assert found_by(books[0], "A Fаlcon") == ["tenant.codename"]
    assert shelf.asked == ["acme"]


async def test_a_new_version_is_fetched_and_whoever_still_names_the_old_one_gets_the_new() -> None:
    shelf = Shelf(rule())
    rules, old = TenantRules(shelf.get, 2), shelf.kept.version
    await rules.of("acme", old)
    shelf.kept = KeptRules.of([rule("eagle")])
    assert found_by(await rules.of("acme", shelf.kept.version), "falcon eagle") == ["tenant.codename"]
    for _ in range(3):
        assert found_by(await rules.of("acme", old), "eagle") == ["tenant.codename"]
    assert len(shelf.asked) == 3


async def test_rules_that_come_back_are_in_force_although_somebody_named_them_in_between() -> None:
    shelf = Shelf(rule())
    rules, old = TenantRules(shelf.get, 2), shelf.kept.version
    await rules.of("acme", old)
    shelf.kept = KeptRules.of([rule("eagle")], shelf.kept)
    assert found_by(await rules.of("acme", old), "falcon eagle") == ["tenant.codename"]
    shelf.kept = KeptRules.of([rule()], shelf.kept)
    assert found_by(await rules.of("acme", shelf.kept.version), "falcon") == ["tenant.codename"]


def test_the_very_rules_that_are_there_keep_their_version() -> None:
    kept = KeptRules.of([rule()])
    assert KeptRules.of([rule()], kept) == kept
    assert KeptRules.of([rule("eagle")], kept).version != kept.version


async def test_rules_that_are_gone_judge_nothing_although_somebody_still_names_them() -> None:
    shelf = Shelf()
    assert await TenantRules(shelf.get, 2).of("acme", "old") is None


async def test_of_more_tenants_those_are_held_that_asked_last() -> None:
    shelf = Shelf(rule())
    rules, version = TenantRules(shelf.get, 2), shelf.kept.version
    for tenant in ("a", "b", "a", "c", "a", "b"):
        await rules.of(tenant, version)
    assert shelf.asked == ["a", "b", "c", "b"]


async def test_rules_that_cannot_be_used_are_no_verdict() -> None:
    shelf = Shelf(rule("(a"))
    with pytest.raises(GuardUnavailable):
        await TenantRules(shelf.get, 2).of("acme", shelf.kept.version)


async def test_a_trial_works_out_the_longest_match() -> None:
    (tried,) = await Trials().tried([rule(r"fal{1,9}con\d?")])
    assert tried["max_length"] == len("falllllllllcon1")


async def test_a_bomb_ends_its_own_process_and_nothing_else() -> None:
    trials = Trials()
    with pytest.raises(FieldInvalid) as caught:
        await trials.tried([rule("eagle", must_match=["eagle"], must_not_match=["x"]), rule("((a{1,50}){1,50}){1,50}")])
    assert caught.value.metadata["field"] == "rules[1].patterns[0]"
    assert len(await trials.tried([rule()])) == 1


async def test_a_word_behind_a_line_break_of_json_is_hidden_in_an_answer() -> None:
    shelf = Shelf(rule(r"\bfalcon\b"))
    book = await TenantRules(shelf.get, 2).of("acme", shelf.kept.version)
    assert book is not None
    with closing(AnswerWatch(book.answers, 0, json=True)) as watch:
        assert watch.feed(r'{"a": "the\nfalcon"}', last=True).text == r'{"a": "the\n[CODENAME]"}'
