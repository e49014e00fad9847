"""Encryption of contents: what it opens, and what it does not."""

from __future__ import annotations

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.billing.contents.envelope import ContentsUnreadable, MasterKey

MASTER = MasterKey(b64encode(bytes(range(32))).decode())
OTHER = MasterKey(b64encode(bytes(32)).decode())
FORMER, NEWEST = b64encode(bytes(range(32))).decode(), b64encode(bytes(range(32, 64))).decode()


@given(st.binary(max_size=300), st.text(max_size=20))
def test_what_was_sealed_is_opened(contents: bytes, request_id: str) -> None:
    wrapped = MASTER.new_key("acme")
    sealed = MASTER.unwrapped(wrapped, "acme").seal(contents, request_id)
    assert MASTER.unwrapped(wrapped, "acme").open(sealed, request_id) == contents
    assert contents == b"" or len(contents) < 4 or contents not in sealed


def test_nothing_is_sealed_twice_alike() -> None:
    key = MASTER.unwrapped(MASTER.new_key("acme"), "acme")
    assert key.seal(b"same", "r1") != key.seal(b"same", "r1")


def test_a_key_is_opened_by_its_master_for_its_tenant_alone() -> None:
    wrapped = MASTER.new_key("acme")
    with pytest.raises(ContentsUnreadable):
        OTHER.unwrapped(wrapped, "acme")
    with pytest.raises(ContentsUnreadable):
        MASTER.unwrapped(wrapped, "beta")


def test_contents_are_opened_by_their_key_for_their_request_unchanged() -> None:
    key = MASTER.unwrapped(MASTER.new_key("acme"), "acme")
    sealed = key.seal(b"hello", "r1")
    for tampered, request_id in [(sealed, "r2"), (sealed[:-1] + b"\0", "r1"), (sealed[:5], "r1"), (b"", "r1")]:
        with pytest.raises(ContentsUnreadable):
            key.open(tampered, request_id)
    with pytest.raises(ContentsUnreadable):
        MASTER.unwrapped(MASTER.new_key("acme"), "acme").open(sealed, "r1")


@pytest.mark.parametrize("key", ["", f"{FORMER},", "short", b64encode(bytes(16)).decode(), "не base64" * 5])
def test_a_weak_master_key_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="32 bytes in base64"):
        MasterKey(key)


def test_a_former_master_key_unwraps_and_no_longer_wraps() -> None:
    rotating = MasterKey(f"{NEWEST}, {FORMER}")
    wrapped = MASTER.new_key("acme")
    sealed = MASTER.unwrapped(wrapped, "acme").seal(b"hello", "r1")
    assert rotating.unwrapped(wrapped, "acme").open(sealed, "r1") == b"hello"
    MasterKey(NEWEST).unwrapped(rotating.new_key("acme"), "acme")


def test_a_key_wrapped_anew_is_the_same_key_and_needs_the_former_master_no_longer() -> None:
    rotating, newest = MasterKey(f"{NEWEST},{FORMER}"), MasterKey(NEWEST)
    wrapped = MASTER.new_key("acme")
    sealed = MASTER.unwrapped(wrapped, "acme").seal(b"hello", "r1")
    anew = rotating.rewrapped(wrapped, "acme")
    assert anew is not None
    assert newest.unwrapped(anew, "acme").open(sealed, "r1") == b"hello"
    assert rotating.rewrapped(anew, "acme") is None
    with pytest.raises(ContentsUnreadable):
        MASTER.unwrapped(anew, "acme")
    with pytest.raises(ContentsUnreadable):
        newest.rewrapped(wrapped, "acme")
