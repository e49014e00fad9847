"""Cheapest first."""

from __future__ import annotations

from services.router.ranking import Price, cheapest_first


def test_the_cheapest_comes_first_and_the_unpriced_last_in_file_order(deployment):
    unpriced, dear, another, cheap = (deployment(name) for name in ("unpriced", "dear", "another", "cheap"))
    prices = {"dear": Price(300, 900), "cheap": Price(0, 0)}
    ordered = cheapest_first([unpriced, dear, another, cheap], prices)
    assert [each.name for each in ordered] == ["cheap", "dear", "unpriced", "another"]


def test_equal_prices_keep_the_order_of_the_file(deployment):
    names = ["b", "a", "c"]
    ordered = cheapest_first([deployment(name) for name in names], dict.fromkeys(names, Price(1, 1)))
    assert [each.name for each in ordered] == names


def test_the_mix_of_tokens_decides_who_is_cheaper(deployment):
    reader, writer = deployment("reader"), deployment("writer")
    prices = {"reader": Price(1, 100), "writer": Price(10, 20)}
    assert cheapest_first([writer, reader], prices, input_tokens=1000, output_tokens=1)[0] is reader
    assert cheapest_first([reader, writer], prices, input_tokens=10, output_tokens=1000)[0] is writer
