"""Who is put to which variant."""

from __future__ import annotations

from collections import Counter

import pytest

from llmmesh.chat.v1 import chat_pb2
from llmmesh.router.v1 import router_pb2
from meshkit.identity import Identity
from services.gateway.assignment import assign, takes_part
from services.gateway.catalogue import Catalogue
from services.gateway.policies import TenantPolicy

KEY, USER, TENANT = (
    router_pb2.EXPERIMENT_UNIT_KEY,
    router_pb2.EXPERIMENT_UNIT_USER,
    router_pb2.EXPERIMENT_UNIT_TENANT,
)


def split(unit=KEY, share=1.0, weights=(1.0, 1.0), deployments=((), ()), tags=(), name="x"):
    variants = [
        router_pb2.SplitVariant(version=f"{name}/{place}", weight=weight, deployments=own, added_input_tokens=place)
        for place, (weight, own) in enumerate(zip(weights, deployments, strict=True))
    ]
    return router_pb2.Split(experiment=name, unit=unit, share=share, tags=tags, variants=variants)


def drawn(of, tenant="acme", key="k", user="", **extra):
    options = chat_pb2.GenerationOptions(user=user, extra_json=extra)
    prompt = chat_pb2.ChatPrompt(model="m", options=options, variant="said by the client")
    added = assign(prompt, of, Identity(tenant, key))
    assert added == (int(prompt.variant[-1]) if prompt.variant else 0)
    return prompt.variant


def test_outside_of_experiments_a_client_names_no_variant():
    assert drawn(None) == ""


def test_the_same_unit_always_gets_the_same_and_units_are_split_by_weight():
    of = split(weights=(3.0, 1.0))
    first = [drawn(of, key=f"k{number}") for number in range(2000)]
    assert first == [drawn(of, key=f"k{number}") for number in range(2000)]
    assert Counter(first)["x/0"] == pytest.approx(1500, abs=80)


def test_who_is_alike_depends_on_the_unit():
    keys = {drawn(split(TENANT), key=f"k{number}", user=f"u{number}") for number in range(50)}
    assert len(keys) == 1
    users = Counter(drawn(split(USER), key="k", user=f"u{number}") for number in range(400))
    assert min(users["x/0"], users["x/1"]) > 150
    assert drawn(split(USER), user="ada") == drawn(split(USER), key="another", user="ada")
    assert drawn(split(USER), safety_identifier='"ada"') == drawn(split(USER), user="ada")
    assert drawn(split(USER)) == "", "a request that names nobody cannot always get the same"
    tenants = {drawn(split(USER), tenant=f"t{number}", user="ada") for number in range(50)}
    assert len(tenants) == 2, "users of two tenants may have the same name"


def test_only_the_share_takes_part_and_a_larger_one_keeps_them():
    some, more = ({n for n in range(2000) if drawn(split(share=share), key=f"k{n}")} for share in (0.1, 0.3))
    assert len(some) == pytest.approx(200, abs=50)
    assert len(more) == pytest.approx(600, abs=80)
    assert some < more
    assert all(drawn(split(share=0.1), key=f"k{n}") == drawn(split(share=0.3), key=f"k{n}") for n in some)


def test_experiments_draw_independently_of_each_other():
    both = Counter((drawn(split(), key=f"k{n}")[-1], drawn(split(name="y"), key=f"k{n}")[-1]) for n in range(2000))
    assert all(count == pytest.approx(500, abs=90) for count in both.values())


def test_a_variant_of_weight_nought_is_drawn_by_nobody():
    assert {drawn(split(weights=(0.0, 1.0)), key=f"k{n}") for n in range(200)} == {"x/1"}


def test_a_tenant_takes_part_only_where_every_variant_is_open_to_it():
    of = split(deployments=(("a/m",), ("b/m", "c/m")), tags=["pilot"])
    assert takes_part(of, ("pilot", "other"), ["a/m", "c/m"])
    assert not takes_part(of, ("other",), ["a/m", "c/m"])
    assert not takes_part(of, ("pilot",), ["a/m"])
    assert takes_part(split(), (), [])


def test_the_offer_to_a_tenant_holds_a_split_only_where_it_takes_part():
    deployments = [router_pb2.Deployment(name=name, provider="p") for name in ("a/m", "b/m")]
    catalogue = Catalogue()
    of = split(deployments=(("a/m",), ("b/m",)))
    catalogue.replace([router_pb2.Model(name="m", deployments=deployments, split=of)])
    assert catalogue.chat_offer("m", TenantPolicy()).split == of
    assert catalogue.chat_offer("m", TenantPolicy(allowed_deployments=frozenset({"a/m"}))).split is None
