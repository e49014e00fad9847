"""A reservation's id says all that settling needs."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta, timezone

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.billing.lease import Lease
from services.billing.reservations import Ask

WORDS = st.text(st.characters(categories=["L", "N", "P"]), min_size=0, max_size=200)


@given(
    st.tuples(WORDS, WORDS, WORDS, WORDS, WORDS),
    st.datetimes(timezones=st.just(UTC)),
    WORDS,
    st.integers(0, 10_000),
    st.none() | st.integers(0, 10**15),
)
def test_an_id_says_what_it_was_made_of(
    parts: tuple[str, str, str, str, str], time: datetime, team: str, images: int, most: int | None
) -> None:
    lease = Lease(*parts, time, team, images, most)
    assert Lease.from_id(lease.to_id()) == lease


def test_a_time_in_another_zone_is_the_same_time() -> None:
    moscow = datetime(2026, 11, 1, 3, tzinfo=timezone(timedelta(hours=3)))
    lease = Lease("t", "k", "r", "m", "RUB", moscow)
    assert Lease.from_id(lease.to_id()).priced_at == datetime(2026, 11, 1, tzinfo=UTC)


@pytest.mark.parametrize("since", [(), (3,)], ids=["images", "a most cost"])
def test_an_id_from_before_there_was_such_a_field_is_still_one(since: tuple[int, ...]) -> None:
    parts = ("t", "k", "r", "m", "RUB", "2026-11-01T00:00:00+00:00", "red", *since)
    old = urlsafe_b64encode(orjson.dumps(parts)).decode()
    assert Lease.from_id(old) == Lease("t", "k", "r", "m", "RUB", datetime(2026, 11, 1, tzinfo=UTC), "red", *since)


@given(st.text() | st.binary().map(lambda noise: noise.hex()))
def test_noise_is_no_id(noise: str) -> None:
    with pytest.raises(ValueError, match="not the id"):
        Lease.from_id(noise)


def test_an_id_with_control_characters_is_no_id() -> None:
    with pytest.raises(ValueError, match="not the id"):
        Lease.from_id(Lease("t", "k", "r\0", "m", "RUB", datetime(2026, 1, 1, tzinfo=UTC)).to_id())


def test_the_same_body_has_the_same_fingerprint_whatever_the_order_of_deployments() -> None:
    one = Ask("r1", "m", ("a", "b"), 1, 2)
    assert one.fingerprint == Ask("r2", "m", ("b", "a"), 1, 2).fingerprint
    others = [Ask("r1", "n", ("a", "b"), 1, 2), Ask("r1", "m", ("a",), 1, 2), Ask("r1", "m", ("a", "b"), 2, 1)]
    assert one.fingerprint not in {other.fingerprint for other in others}
