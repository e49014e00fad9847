"""Which version of the guard's policy cached answers are bound to."""

from __future__ import annotations

from services.gateway.guard_policy import GuardPolicy


def test_a_tenants_own_rules_are_part_of_its_version_and_of_nobody_elses() -> None:
    policy = GuardPolicy(60)
    policy.learn("v1+r7")
    assert (policy.version(), policy.version("r8")) == ("v1", "v1+r8")


def test_what_is_not_known_is_not_known_for_any_rules() -> None:
    now = [0.0]
    policy = GuardPolicy(60, lambda: now[0])
    assert (policy.version(), policy.version("r8")) == ("", "")
    policy.learn("v1")
    now[0] = 61
    assert policy.version("r8") == ""
