"""An experiment from outside: users are split, the cache keeps their answers apart, an operator reads who is better."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from tests.support.fix_mesh import Mesh, Tenant, eventually
from tests.support.scripted_provider import ScriptedProvider

PIRATE = "Talk like a pirate."


async def ask(tenant: Tenant, user: str, text: str = "Where do foxes live?", **more: Any) -> httpx.Response:
    return (await tenant.chat(text, model="split", user=user, **more)).raise_for_status()


async def sides(tenant: Tenant, text: str) -> tuple[str, str]:
    """A user of each variant."""
    found: dict[str, str] = {}
    for number in range(64):
        answer = await ask(tenant, f"u{number}", f"{text} {number}")
        found.setdefault(answer.headers["x-llmmesh-provider"], f"u{number}")
        if len(found) == 2:
            break
    return found["first"], found["second"]


async def experiment(mesh: Mesh, name: str = "pirates") -> dict[str, Any]:
    answer = await mesh.http.get(f"/v1/experiments/{name}", headers=mesh.admin)
    told: dict[str, Any] = answer.raise_for_status().json()["experiment"]
    return told


def requests_of(told: dict[str, Any]) -> list[int]:
    return [int(variant.get("requests", 0)) for variant in told["variants"]]


def figure(variant: dict[str, Any], measure: str) -> dict[str, Any]:
    """A figure of a variant; empty while nothing is known."""
    return next((each for each in variant.get("figures", []) if each["measure"] == f"MEASURE_{measure}"), {})


async def test_a_user_always_gets_the_same_variant_and_its_prompt(
    mesh: Mesh, tenant: Tenant, first: ScriptedProvider, second: ScriptedProvider
) -> None:
    plain, pirate = await sides(tenant, "Who am I?")
    for number in range(3):
        for user, provider in ((plain, "first"), (pirate, "second")):
            assert (await ask(tenant, user, f"Again {number}")).headers["x-llmmesh-provider"] == provider
    assert second.bodies[-1]["messages"][0] == {"role": "system", "content": PIRATE}
    assert [each["role"] for each in first.bodies[-1]["messages"]] == ["user"]


async def test_the_cache_never_gives_one_variant_the_answer_of_the_other(
    mesh: Mesh, tenant: Tenant, first: ScriptedProvider, second: ScriptedProvider
) -> None:
    plain, pirate = await sides(tenant, "Who sails?")
    second.set(reply="Arr, in dens, matey.")

    async def hit(user: str) -> httpx.Response | None:
        answer = await ask(tenant, user)
        return answer if answer.headers["x-llmmesh-cache"] == "exact" else None

    kept = (await eventually(lambda: hit(plain))).json()["choices"][0]["message"]["content"]
    fresh = await ask(tenant, pirate)
    assert fresh.headers["x-llmmesh-cache"] == "miss"
    theirs = (await eventually(lambda: hit(pirate))).json()["choices"][0]["message"]["content"]
    assert (kept, theirs) == ("The quick brown fox jumps over the lazy dog.", "Arr, in dens, matey.")


async def test_an_answer_that_another_variant_had_to_give_is_not_kept(
    mesh: Mesh, tenant: Tenant, first: ScriptedProvider, second: ScriptedProvider
) -> None:
    _, pirate = await sides(tenant, "Who fails?")
    second.set(fail_next=1)
    rescued = await ask(tenant, pirate, "Does it stay?")
    assert rescued.headers["x-llmmesh-provider"] == "first"

    async def told() -> bool:
        return len(await tenant.usage(rows=1)) > 0

    await eventually(told)
    again = await eventually(lambda: _answered_by_second(tenant, pirate))
    assert again.headers["x-llmmesh-cache"] == "miss"


async def _answered_by_second(tenant: Tenant, user: str) -> httpx.Response | None:
    """Its breaker may stand open for a moment."""
    answer = await ask(tenant, user, "Does it stay?")
    assert answer.headers["x-llmmesh-cache"] == "miss", "nothing of the first one was kept"
    return answer if answer.headers["x-llmmesh-provider"] == "second" else None


async def test_requests_that_a_variant_may_not_have_are_answered_and_not_counted(
    mesh: Mesh, tenant: Tenant, second: ScriptedProvider
) -> None:
    tied = await mesh.tenant(allowed_deployments=["first/split"])
    before = await experiment(mesh)
    for number in range(8):
        assert (await ask(tied, f"u{number}")).headers["x-llmmesh-provider"] == "first"
    assert second.counters.requests == 0
    nameless = await tenant.chat("Nobody asks.", model="split")
    assert nameless.status_code == 200
    assert requests_of(await experiment(mesh)) == requests_of(before)


async def test_an_operator_reads_which_variant_is_worse_and_feedback_counts(
    mesh: Mesh, tenant: Tenant, first: ScriptedProvider, second: ScriptedProvider
) -> None:
    second.set(ttft_ms=150)
    before = requests_of(await experiment(mesh))
    places = asyncio.Semaphore(12)

    async def one(number: int) -> httpx.Response:
        async with places:
            return await ask(tenant, f"reader{number}", f"Tell me of fox {number}.")

    answers = await asyncio.gather(*(one(number) for number in range(140)))
    judged = next(each for each in answers if each.headers["x-llmmesh-provider"] == "second")
    body = {"request_id": judged.headers["x-request-id"], "thumbs_up": False}
    (await mesh.http.post("/v1/feedback", headers=tenant.headers, json=body)).raise_for_status()

    async def counted() -> dict[str, Any] | None:
        told = await experiment(mesh)
        quality = figure(told["variants"][1], "QUALITY")
        return told if sum(requests_of(told)) == sum(before) + 140 and quality.get("count") else None

    told = await eventually(counted)
    (found,) = [each for each in told["comparisons"] if each["measure"] == "MEASURE_FIRST_TOKEN_SECONDS"]
    assert found["verdict"] == "VERDICT_WORSE", told
    assert found["anytime_p_value"] < 0.05
    assert 0 < found["anytime_interval"]["low"] < found["difference"] < found["anytime_interval"]["high"] < 0.4
    assert "pirate by first_token_seconds: worse" in told["conclusion"]
    (quality,) = [each for each in told["comparisons"] if each["measure"] == "MEASURE_QUALITY"] or [None]
    assert quality is None or quality["verdict"] == "VERDICT_NOT_ENOUGH_DATA"
    assert figure(told["variants"][1], "FALLBACK")["mean"] < 0.1
    listed = (await mesh.http.get("/v1/experiments", headers=mesh.admin)).json()["experiments"]
    assert [each["name"] for each in listed] == ["pirates", "shadow-second-copied"]


async def test_experiments_are_for_operators(mesh: Mesh, tenant: Tenant) -> None:
    assert (await mesh.http.get("/v1/experiments", headers=tenant.headers)).status_code == 403
    missing = await mesh.http.get("/v1/experiments/none", headers=mesh.admin)
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "resource_not_found")


async def test_an_explanation_says_which_variant_would_answer(mesh: Mesh, tenant: Tenant) -> None:
    places = set()
    for number in range(40):
        message = {"role": "ROLE_USER", "content": [{"text": "Hello"}]}
        prompt = {"model": "split", "messages": [message], "options": {"user": f"u{number}"}, "variant": "spoofed"}
        answer = await mesh.http.post("/v1/routes:explain", headers=tenant.headers, json={"prompt": prompt})
        told = answer.raise_for_status().json()["explanation"]
        first = next(each for each in told["candidates"] if each["place"] == 1)["deployment"]
        places.add((told["variant"].partition("@")[0], first))
    assert places == {("pirates/plain", "first/split"), ("pirates/pirate", "second/split")}


async def test_a_shadow_gets_copies_that_neither_the_client_nor_its_bill_shows(
    mesh: Mesh, tenant: Tenant, first: ScriptedProvider, second: ScriptedProvider
) -> None:
    second.set(reply="Nobody reads this.", ttft_ms=300)
    before = requests_of(await experiment(mesh, "shadow-second-copied"))
    answer = (await tenant.chat("Copy this.", model="copied")).raise_for_status()
    assert answer.headers["x-llmmesh-provider"] == "first"
    assert "Nobody" not in answer.text
    await second.until(lambda now: now.finished_streams == 1)
    assert second.bodies[0]["messages"] == first.bodies[-1]["messages"]

    async def counted() -> dict[str, Any] | None:
        told = await experiment(mesh, "shadow-second-copied")
        return told if requests_of(told) == [requests + 1 for requests in before] else None

    told = await eventually(counted)
    original, copy = told["variants"]
    assert told["shadow"]
    assert figure(copy, "COST_MICROS")["mean"] > 100 * figure(original, "COST_MICROS")["mean"] > 0
    (row,) = await tenant.usage(rows=1)
    assert (row["deployment"], int(row["cost_micros"])) == ("first/copied", figure(original, "COST_MICROS")["mean"])
    spent = (await tenant.admin_get("/budget"))["budget"]
    assert int(spent["spent_micros"]) == int(row["cost_micros"])


async def test_data_that_may_not_leave_is_not_copied(mesh: Mesh, tenant: Tenant, second: ScriptedProvider) -> None:
    tied = await mesh.tenant(allowed_deployments=["first/copied"])
    assert (await tied.chat("Stay.", model="copied")).status_code == 200
    assert second.counters.requests == 0
