"""Keys that are no longer good, or soon will not be."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from llmmesh.tenant.v1 import tenant_pb2
from meshkit.revocation import SKEW_SECONDS, Revocations


class Clock:
    """Time that passes when the test says so."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def at(seconds: int, *key_ids: str) -> list[tenant_pb2.Revocation]:
    return [tenant_pb2.Revocation(key_id=key_id, revoke_time=Timestamp(seconds=seconds)) for key_id in key_ids]


def test_a_key_is_good_until_its_time_has_come() -> None:
    known = Revocations(clock := Clock())
    known.take(at(2000, "retiring"), everything=True)
    known.take(at(900, "revoked"), everything=False)
    assert [known.revoked(key_id) for key_id in ("retiring", "revoked", "other")] == [False, True, False]
    clock.now = 2000
    assert known.revoked("retiring")


def test_a_clock_that_is_a_little_behind_revokes_all_the_same() -> None:
    known = Revocations(Clock())
    known.take(at(1000 + int(SKEW_SECONDS), "revoked-by-a-clock-ahead"), everything=True)
    assert known.revoked("revoked-by-a-clock-ahead")


def test_the_whole_replaces_what_was_known() -> None:
    known = Revocations(Clock())
    known.take(at(1, "old"), everything=True)
    known.take(at(1, "new"), everything=True)
    assert [known.revoked(key_id) for key_id in ("old", "new")] == [False, True]
