"""What callers say about the cache, and what is made of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from llmmesh.gateway.v1 import gateway_pb2
from meshkit.errors import FieldInvalid
from services.gateway.cache_control import (
    AS_ALLOWED,
    BYPASS,
    LONGEST_SECONDS,
    CacheControl,
    control_in_headers,
    control_in_message,
    duration,
)


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("cache-control", "no-cache", CacheControl(reads=False)),
        ("cache-control", "max-age=0, No-Store", CacheControl(writes=False, max_age_seconds=0)),
        ("cache-control", 'max-age="60"', CacheControl(max_age_seconds=60)),
        ("cache-control", "max-age=60, max-age=5", CacheControl(max_age_seconds=5)),
        ("cache-control", "max-stale=5, only-new", AS_ALLOWED),
        ("cache-control", "", AS_ALLOWED),
        ("x-llmmesh-cache", "bypass", BYPASS),
        ("x-llmmesh-cache-ttl", "600", CacheControl(ttl_seconds=600)),
        ("x-llmmesh-cache-semantic", "OFF", CacheControl(semantic=False)),
        ("x-llmmesh-cache-semantic", "on", AS_ALLOWED),
        ("x-llmmesh-cache-pace", "12.5", CacheControl(pieces_per_second=12.5)),
        ("pragma", "no-cache", AS_ALLOWED),
    ],
)
def test_a_header_says_how_the_cache_may_be_used(name: str, value: str, meant: CacheControl) -> None:
    assert control_in_headers([("user-agent", "x"), (name, value)]) == meant


def test_no_header_leaves_everything_to_the_policy() -> None:
    assert control_in_headers(None) is AS_ALLOWED


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cache-control", "max-age"),
        ("cache-control", "max-age=-1"),
        ("cache-control", "max-age=1.5"),
        ("cache-control", "max-age=" + "9" * 400),
        ("x-llmmesh-cache", "maybe"),
        ("x-llmmesh-cache-ttl", "0"),
        ("x-llmmesh-cache-ttl", "1h"),
        ("x-llmmesh-cache-ttl", "٣"),
        ("x-llmmesh-cache-ttl", "99999999"),
        ("x-llmmesh-cache-semantic", "perhaps"),
        ("x-llmmesh-cache-pace", "fast"),
        ("x-llmmesh-cache-pace", "-1"),
        ("x-llmmesh-cache-pace", "nan"),
    ],
)
def test_a_header_that_cannot_be_understood_is_named(name: str, value: str) -> None:
    with pytest.raises(FieldInvalid) as caught:
        control_in_headers([(name, value)])
    assert caught.value.metadata["field"] == name


def test_of_two_sayings_the_stricter_counts() -> None:
    headers = [("cache-control", "no-store, max-age=60"), ("x-llmmesh-cache-ttl", "5")]
    message = gateway_pb2.CacheControl(exact_only=True, max_age=timedelta(seconds=90), ttl=timedelta(seconds=7))
    asked = control_in_message(gateway_pb2.CACHE_MODE_UNSPECIFIED, message).within(control_in_headers(headers))
    assert asked == CacheControl(writes=False, semantic=False, max_age_seconds=60, ttl_seconds=7)


def test_a_typed_request_may_bypass_the_cache() -> None:
    assert control_in_message(gateway_pb2.CACHE_MODE_BYPASS, gateway_pb2.CacheControl()) == BYPASS


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("cache_control.ttl", {"ttl": timedelta(0)}),
        ("cache_control.ttl", {"ttl": timedelta(days=31)}),
        ("cache_control.max_age", {"max_age": timedelta(seconds=-1)}),
        ("cache_control.pieces_per_second", {"pieces_per_second": -1}),
    ],
)
def test_a_typed_field_out_of_range_is_named(field: str, fields: dict[str, Any]) -> None:
    with pytest.raises(FieldInvalid) as caught:
        control_in_message(gateway_pb2.CACHE_MODE_UNSPECIFIED, gateway_pb2.CacheControl(**fields))
    assert caught.value.metadata["field"] == field


def test_a_very_long_time_is_as_good_as_the_longest() -> None:
    asked = gateway_pb2.CacheControl()
    asked.max_age.seconds = 315_576_000_000
    control = control_in_message(gateway_pb2.CACHE_MODE_UNSPECIFIED, asked)
    assert duration(control.max_age_seconds) == duration(1e14) == duration(LONGEST_SECONDS)
