"""What a finance person sees through the edge: budgets, refusals, reports."""

from __future__ import annotations

import csv
import io
from typing import Any
from xml.etree import ElementTree

import httpx
import pytest
from pypdf import PdfReader

from tests.support.fix_mesh import Tenant

RUBLE = 1_000_000


@pytest.fixture
async def finance(tenant: Tenant) -> Tenant:
    """Somebody who may see and set what the tenant spends, and nothing else."""
    person = Tenant(tenant.mesh, tenant.id)
    await person.key(roles=["ROLE_FINANCE"])
    return person


async def call(person: Tenant, method: str, path: str, **body: Any) -> httpx.Response:
    url = f"/v1/tenants/{person.id}{path}"
    return await person.mesh.http.request(method, url, headers=person.headers, json=body or None)


async def test_budgets_are_made_listed_in_pages_changed_and_deleted(finance: Tenant) -> None:
    for name, team in (("alpha", "red"), ("beta", "blue")):
        body = {"budget_id": name, "team_id": team, "limit_micros": 5 * RUBLE, "cycle": "BUDGET_CYCLE_QUARTER",
                "time_zone": "Europe/Moscow"}  # fmt: skip
        made = (await call(finance, "POST", "/budgets", **body)).raise_for_status().json()["budget"]
        assert (made["id"], made["team_id"], made["alert_percents"]) == (name, team, [50, 80, 100])
    assert (await call(finance, "POST", "/budgets", **body)).status_code == 409
    first = (await call(finance, "GET", "/budgets?page_size=2")).json()
    rest = (await call(finance, "GET", f"/budgets?page_size=2&page_token={first['next_page_token']}")).json()
    assert [each["id"] for page in (first, rest) for each in page["budgets"]] == ["alpha", "beta", "default"]
    assert [each["id"] for each in (await call(finance, "GET", "/budgets?team_id=red")).json()["budgets"]] == ["alpha"]
    changed = (await call(finance, "PATCH", "/budgets/beta", limit_micros=RUBLE, etag=made["etag"])).json()["budget"]
    assert changed["limit_micros"] == str(RUBLE)
    assert (await call(finance, "PATCH", "/budgets/beta", limit_micros=0, etag=made["etag"])).status_code == 409
    (await call(finance, "DELETE", "/budgets/beta")).raise_for_status()
    assert (await call(finance, "GET", "/budgets/beta")).status_code == 404


async def test_a_key_without_money_left_is_refused_as_openai_would(tenant: Tenant, finance: Tenant) -> None:
    body = {"budget_id": "tiny", "key_id": tenant.key_id, "limit_micros": 1, "cycle": "BUDGET_CYCLE_PREPAID"}
    (await call(finance, "POST", "/budgets", **body)).raise_for_status()
    refused = await tenant.chat("May I?")
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "insufficient_quota"
    assert "tiny" in refused.json()["error"]["message"]
    assert (await call(finance, "GET", "/usage")).json() == {}


async def test_a_report_says_what_the_ledger_says_as_json_table_and_chart(tenant: Tenant, finance: Tenant) -> None:
    for text in ("Report me once.", "Report me twice."):
        (await tenant.chat(text)).raise_for_status()
    cost = sum(int(row["cost_micros"]) for row in await tenant.usage(rows=2))
    report = (await call(finance, "GET", "/report")).json()["report"]
    assert int(report["total"]["cost_micros"]) == cost > 0
    assert [line["name"] for line in report["by_deployment"]] == ["first/scripted"]
    assert [line["name"] for line in report["by_key"]] == [tenant.key_id]
    assert sum(int(hour["cost_micros"]) for hour in report["hours"]) == cost
    table = await call(finance, "GET", "/report:export?format=REPORT_FORMAT_CSV")
    assert table.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(table.text)))
    assert {row["level"] for row in rows} >= {"total", "provider", "model", "deployment", "key", "day"}
    assert float(rows[0]["cost"]) * RUBLE == pytest.approx(cost)
    chart = await call(finance, "GET", "/report:export?format=REPORT_FORMAT_SVG")
    assert chart.headers["content-type"] == "image/svg+xml"
    assert ElementTree.fromstring(chart.content).tag == "{http://www.w3.org/2000/svg}svg"


async def test_an_invoice_says_what_the_ledger_says_as_json_and_on_paper(tenant: Tenant, finance: Tenant) -> None:
    (await tenant.chat("Bill me.")).raise_for_status()
    (row,) = await tenant.usage(rows=1)
    invoice = (await call(finance, "GET", "/invoice")).json()["invoice"]
    assert invoice["total_micros"] == invoice["lines"][0]["cost_micros"] == row["cost_micros"]
    printed = await call(finance, "GET", "/invoice:export")
    assert printed.headers["content-type"] == "application/pdf"
    assert invoice["number"] in PdfReader(io.BytesIO(printed.content)).pages[0].extract_text()


PATHS = (
    "/budgets", "/budget-events", "/report", "/report:export", "/invoice", "/invoice:export", "/usage", "/usage:summary"
)  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
async def test_money_is_no_business_of_a_developer_or_of_another_tenant(tenant: Tenant, path: str) -> None:
    assert (await call(tenant, "GET", path)).status_code == 403
    stranger = Tenant(tenant.mesh, (await tenant.mesh.tenant()).id)
    await stranger.key(roles=["ROLE_FINANCE"])
    url = f"/v1/tenants/{tenant.id}{path}"
    answer = await tenant.mesh.http.get(url, headers=stranger.headers)
    assert answer.status_code == 404
