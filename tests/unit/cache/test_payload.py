from __future__ import annotations

from prometheus_client import REGISTRY

from services.cache.vectorstores.matching import matches
from services.cache.vectorstores.payload import payload_of
from services.cache.vectorstores.port import Entry, Match

ENTRY = Entry("id", [1.0], [1.0], "acme", "small", "c1", "How?", b"\x00\xff", 5.0, tokens=b"\xfe\x00")


def test_what_is_stored_is_what_is_found() -> None:
    assert matches([("id", 0.9, payload_of(ENTRY))]) == [Match(0.9, "How?", b"\x00\xff", "id", tokens=b"\xfe\x00")]


def test_entries_of_a_version_that_kept_no_tokens_are_left_out_and_counted() -> None:
    labels = {"level": "semantic", "flaw": "outdated"}
    before = REGISTRY.get_sample_value("llm_cache_unusable_entries_total", labels) or 0
    old = payload_of(ENTRY)
    del old["tokens"]
    assert matches([("id", 1.0, old)]) == []
    assert REGISTRY.get_sample_value("llm_cache_unusable_entries_total", labels) == before + 1


def test_damaged_points_are_left_out_and_counted() -> None:
    labels = {"level": "semantic", "flaw": "damaged"}
    before = REGISTRY.get_sample_value("llm_cache_unusable_entries_total", labels) or 0
    damaged = [None, {}, {"question": "q"}, {"question": "q", "answer": "%%%", "tokens": ""}]
    assert matches([("id", 1.0, payload) for payload in damaged]) == []
    assert REGISTRY.get_sample_value("llm_cache_unusable_entries_total", labels) == before + len(damaged)
