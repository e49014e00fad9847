"""What counts as a violation, and for whom."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from services.billing.audit.event import Event, Finding
from services.billing.compliance.export import FORMATS
from services.billing.compliance.packs import Packs, pack_names
from services.billing.compliance.violation import Violation

PACKS = Packs.read()
NOW = datetime(2026, 11, 22, tzinfo=UTC)


def event(*findings: Finding, **fields: Any) -> Event:
    return Event(
        request_id="r1", tenant_id="acme", key_id="k", model="m", create_time=NOW, findings=findings,
        **{"outcome": "answered", **fields},
    )  # fmt: skip


def finding(rule: str, category: str = "personal_data", severity: str = "medium", direction: str = "input") -> Finding:
    return Finding(rule, "patterns", category, severity, direction, masked_context="around [personal_data]")


def counted(*packs: str, of: Event) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(each.type, each.severity, each.packs) for each in PACKS.violations(of, packs)]


def test_the_packs_are_those_that_a_policy_may_name() -> None:
    assert pack_names() == ("base", "fintech", "fz152", "gdpr") == tuple(PACKS.all)


def test_an_attack_counts_for_everybody() -> None:
    attack = event(finding("injection.override.ru", "prompt_injection", "critical"), outcome="blocked")
    assert counted(of=attack) == [("prompt_injection", "critical", ("base",))]


def test_an_email_counts_only_for_those_who_are_held_to_it() -> None:
    mail = event(finding("personal_data.email"))
    assert counted(of=mail) == []
    assert counted("fintech", of=mail) == []
    assert counted("gdpr", of=mail) == [("personal_data", "medium", ("gdpr",))]


@pytest.mark.parametrize(
    ("rule", "packs", "expected"),
    [
        ("personal_data.snils", ["fz152"], ("state_identifier", "high", ("fz152",))),
        ("personal_data.snils", ["gdpr", "fz152"], ("state_identifier", "high", ("gdpr", "fz152"))),
        ("personal_data.biometric.face", ["fz152"], ("biometric_data", "high", ("fz152",))),
        ("personal_data.oms", ["gdpr"], ("health_data", "high", ("gdpr",))),
        ("personal_data.health", ["gdpr"], ("health_data", "high", ("gdpr",))),
        ("personal_data.health", ["fz152"], ("special_category", "high", ("fz152",))),
        ("personal_data.religion", ["gdpr", "fz152"], ("special_category", "high", ("gdpr", "fz152"))),
        ("tenant.health_club", ["gdpr"], ("personal_data", "medium", ("gdpr",))),
        ("personal_data.card", ["fintech"], ("card_data", "high", ("fintech",))),
        ("personal_data.card.leaked", ["fintech", "gdpr"], ("card_data", "high", ("fintech", "gdpr"))),
        ("personal_data.iban", ["fintech"], ("account_data", "high", ("fintech",))),
    ],
)
def test_the_strictest_pack_names_a_finding(rule: str, packs: list[str], expected: tuple[object, ...]) -> None:
    assert counted(*packs, of=event(finding(rule))) == [expected]


def test_the_tax_number_of_a_person_counts_and_that_of_an_organisation_does_not() -> None:
    assert counted("fz152", of=event(finding("personal_data.inn"))) == [("state_identifier", "high", ("fz152",))]
    assert counted("fz152", of=event(finding("organisation.inn", "organisation", "low"))) == []


def test_a_card_in_an_answer_counts_for_everybody() -> None:
    leaked = event(finding("personal_data.card.leaked", severity="critical", direction="output"), outcome="stopped")
    assert counted(of=leaked) == [("personal_data_leaked", "critical", ("base",))]


def test_a_match_of_a_tenants_own_rule_counts_from_high_severity_on() -> None:
    assert counted(of=event(finding("tenant.merger", "confidential", "critical"))) == [
        ("own_rule", "critical", ("base",))
    ]
    assert counted(of=event(finding("tenant.codename", "confidential"))) == []


def test_a_transfer_that_was_stopped_counts() -> None:
    stopped = event(outcome="refused", reason="REGION_NOT_ALLOWED", data_class="sensitive")
    assert counted("fz152", of=stopped) == [("cross_border_transfer", "high", ("fz152",))]
    assert counted("gdpr", of=stopped) == [("personal_data_transfer", "high", ("gdpr",))]
    public = event(outcome="refused", reason="REGION_NOT_ALLOWED", data_class="internal")
    assert counted("fz152", "gdpr", of=public) == []


def test_what_the_guard_could_not_judge_counts() -> None:
    assert counted(of=event(unguarded=True)) == [("unguarded", "high", ("base",))]


def test_an_innocent_answer_counts_for_nobody() -> None:
    assert counted(*pack_names(), of=event()) == []


def test_a_violation_says_where_it_comes_from() -> None:
    (violation,) = PACKS.violations(event(finding("personal_data.email"), outcome="stopped"), ["gdpr"])
    assert (violation.request_id, violation.key_id, violation.outcome) == ("r1", "k", "stopped")
    assert (violation.rule, violation.direction, violation.context) == (
        "personal_data.email", "input", "around [personal_data]"
    )  # fmt: skip


@pytest.mark.parametrize(
    "text",
    ["title: t\nviolations: []", "title: t\nviolations: [{type: a, severity: high}]",
     "title: t\nviolations: [{type: a, severity: bad, rules: [x]}]"],
)  # fmt: skip
def test_a_pack_that_counts_nothing_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(ValidationError):
        Packs.read(tmp_path)


def test_exports_are_safe_to_open_in_a_spreadsheet() -> None:
    violation = Violation("acme", "=HYPERLINK(1)", "k", "m", NOW, "a", "high", ("base", "gdpr"), "blocked",
                          context='say "hi", \n@SUM(1)')  # fmt: skip
    text = (FORMATS["csv"].header + FORMATS["csv"].lines([violation])).decode()
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert (row["request_id"], row["packs"], row["context"]) == ("'=HYPERLINK(1)", "base gdpr", violation.context)
    line = orjson.loads(FORMATS["jsonl"].lines([violation]))
    assert (line["request_id"], line["create_time"]) == ("=HYPERLINK(1)", "2026-11-22T00:00:00Z")
