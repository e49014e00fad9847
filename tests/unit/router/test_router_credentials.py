"""Tokens: who asks for them, how often, and when they end."""

from __future__ import annotations

import asyncio
import time

import pytest

from services.router.providers.credentials import RenewedCredential, Token
from services.router.providers.issuers import token_in
from services.router.providers.provider import FailureKind, ProviderFailure


class Issuer:
    """Gives tokens that live for 100 seconds of its own clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.asked = 0
        self.failing = False
        self.was_asked = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()

    async def issue(self) -> Token:
        self.asked += 1
        asked = self.asked
        self.was_asked.set()
        await self.open.wait()
        if self.failing:
            raise ProviderFailure(FailureKind.UNAVAILABLE, "away")
        return Token(f"t{asked}", self.now + 100)


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def credential(issuer: Issuer) -> RenewedCredential:
    return RenewedCredential(issuer.issue, lambda: issuer.now)


async def waiting(credential: RenewedCredential, issuer: Issuer, count: int) -> list[asyncio.Task[str]]:
    """So many who wait for a token that is being issued."""
    issuer.open.clear()
    tasks = [asyncio.create_task(credential.authorization()) for _ in range(count)]
    await issuer.was_asked.wait()
    return tasks


async def test_many_who_wait_are_served_by_one_request(credential, issuer):
    tasks = await waiting(credential, issuer, 20)
    issuer.open.set()
    assert {await task for task in tasks} == {"Bearer t1"}
    assert issuer.asked == 1


async def test_many_who_wait_share_a_failure(credential, issuer):
    tasks = await waiting(credential, issuer, 20)
    issuer.failing = True
    issuer.open.set()
    failures = await asyncio.gather(*tasks, return_exceptions=True)
    assert {failure.kind for failure in failures} == {FailureKind.UNAVAILABLE}
    assert issuer.asked == 1
    issuer.failing = False
    assert await credential.authorization() == "Bearer t2"


async def test_when_the_one_who_asks_leaves_another_asks(credential, issuer):
    tasks = await waiting(credential, issuer, 3)
    tasks[0].cancel()
    issuer.open.set()
    assert await tasks[1] == await tasks[2] == "Bearer t2"


async def test_a_token_is_renewed_before_it_ends(credential, issuer):
    await credential.authorization()
    issuer.now += 39
    assert await credential.authorization() == "Bearer t1"
    issuer.now += 1
    assert await credential.authorization() == "Bearer t2"


async def test_nobody_waits_for_a_new_token_while_the_old_one_is_good(credential, issuer):
    await credential.authorization()
    issuer.now += 50
    issuer.open.clear()
    issuer.was_asked.clear()
    renewing = asyncio.create_task(credential.authorization())
    await issuer.was_asked.wait()
    assert await credential.authorization() == "Bearer t1"
    issuer.open.set()
    assert await renewing == "Bearer t2"


async def test_a_refused_token_is_forgotten_but_not_its_successor(credential, issuer):
    first = await credential.authorization()
    assert await credential.renew(first)
    second = await credential.authorization()
    assert await credential.renew(first)
    assert await credential.authorization() == second == "Bearer t2"


async def test_an_ended_token_is_not_used_when_there_is_no_other(credential, issuer):
    await credential.authorization()
    issuer.now += 101
    issuer.failing = True
    with pytest.raises(ProviderFailure):
        await credential.authorization()


@pytest.mark.parametrize(
    ("answer", "ends"),
    [
        ({"access_token": "t", "expires_at": 1706026848841}, 1706026848.841),
        ({"access_token": "t", "expires_at": 1706026848}, 1706026848),
        ({"tok": "t", "exp": 1695128118}, 1695128118),
    ],
)
def test_the_end_of_a_token_is_read_in_seconds_or_milliseconds(answer, ends):
    assert token_in(answer) == Token("t", ends)


def test_a_life_is_counted_from_now():
    assert token_in({"access_token": "t", "expires_in": 3600}).expires_at == pytest.approx(time.time() + 3600, abs=5)
    assert token_in({"access_token": "t"}).expires_at == pytest.approx(time.time() + 1800, abs=5)


@pytest.mark.parametrize("answer", [{}, {"access_token": 5}, {"access_token": "a\r\nb"}, {"access_token": ""}])
def test_an_answer_without_a_token_is_malformed(answer):
    with pytest.raises(ProviderFailure) as caught:
        token_in(answer)
    assert caught.value.kind is FailureKind.MALFORMED
