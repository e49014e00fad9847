"""Reservations that must not be: bad fields, made-up ids, other people's."""

from __future__ import annotations

from collections.abc import Awaitable
from itertools import count

import grpc
import pytest

from llmmesh.billing.v1 import billing_pb2
from meshkit.errors import error_info, error_reason
from meshkit.identity import Identity, acting_as
from tests.support.billing_room import RUBLE, Room

_numbers = count()


@pytest.fixture
async def caller(room: Room) -> Identity:
    """A developer of a new tenant."""
    return await room.tenant(f"tenant-{next(_numbers)}")


async def refusal(call: Awaitable[object]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_a_deployment_without_a_price_is_named(room: Room, caller: Identity) -> None:
    error = await refusal(room.reserve(caller, "r1", deployments=("local/small", "nobody/knows")))
    info = error_info(error)
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert info
    assert info.metadata["resource"] == "prices/nobody/knows"
    assert "nobody/knows" in str(error.details())


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("request_id", {"request_id": ""}),
        ("request_id", {"request_id": "a\0b"}),
        ("request_id", {"request_id": "a" * 201}),
        ("model", {"model": ""}),
        ("deployments", {"deployments": []}),
        ("deployments", {"deployments": [""]}),
        ("input_tokens", {"input_tokens": -1}),
        ("max_output_tokens", {"max_output_tokens": -1}),
    ],
)
async def test_a_bad_field_of_a_reservation_is_named(
    room: Room, caller: Identity, field: str, fields: dict[str, object]
) -> None:
    good: dict[str, object] = {"request_id": "r1", "model": "small", "deployments": ["local/small"]}
    with acting_as(caller):
        error = await refusal(
            room.billing.CreateReservation(billing_pb2.CreateReservationRequest(**{**good, **fields}))  # type: ignore[arg-type]
        )
    info = error_info(error)
    assert info
    assert (info.reason, info.metadata["field"]) == ("FIELD_INVALID", field)


@pytest.mark.parametrize("reservation_id", ["", "nonsense", "W10", "WzEsMiwzLDQsNSw2XQ", "ключ"])
async def test_a_made_up_reservation_is_refused(room: Room, caller: Identity, reservation_id: str) -> None:
    error = await refusal(room.commit(caller, billing_pb2.Reservation(id=reservation_id)))
    info = error_info(error)
    assert info
    assert info.metadata["field"] == "reservation_id"


async def test_another_tenants_reservation_does_not_exist(room: Room, caller: Identity) -> None:
    thief = await room.tenant("thief")
    reservation = await room.reserve(caller, "r1")
    for attempt in (room.commit(thief, reservation), room.cancel(thief, reservation)):
        assert error_reason(await refusal(attempt)) == "RESOURCE_NOT_FOUND"
    assert (await room.budget(caller)).reserved_micros == RUBLE


async def test_negative_usage_is_refused_and_names_the_bucket(room: Room, caller: Identity) -> None:
    error = await refusal(room.commit(caller, await room.reserve(caller, "r1"), output_tokens=-5))
    info = error_info(error)
    assert info
    assert info.metadata["field"] == "usage.output_tokens"


async def test_an_unknown_tenant_cannot_reserve(room: Room) -> None:
    stranger = Identity("stranger", "key-9", frozenset({"developer"}), "req")
    assert error_reason(await refusal(room.reserve(stranger, "r1"))) == "RESOURCE_NOT_FOUND"


async def test_nobody_cannot_reserve(room: Room) -> None:
    assert error_reason(await refusal(room.reserve(Identity(), "r1"))) == "CREDENTIAL_INVALID"
