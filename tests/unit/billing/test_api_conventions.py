"""Every administrative RPC of billing keeps the same promises: repeats, versions, pages, filters."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from google.protobuf.descriptor import Descriptor, MethodDescriptor

from deploy.envoy.catalogue import read_methods
from llmmesh.audit.v1 import audit_pb2, compliance_pb2, contents_pb2
from llmmesh.billing.v1 import billing_pb2, budgets_pb2, prices_pb2, reports_pb2
from llmmesh.tenant.v1 import teams_pb2, tenant_pb2

FILES = (
    audit_pb2, compliance_pb2, contents_pb2, billing_pb2, budgets_pb2, prices_pb2, reports_pb2, teams_pb2, tenant_pb2
)  # fmt: skip
EXPOSED = {method.path for method in read_methods() if method.exposed}
VERSIONED = ("Update", "Change", "Delete", "Undelete", "Rotate", "Revoke")
PAGING = {"page_size", "page_token"}
WHOLE = {"ListPacks"}
"""What every tenant sees the same few of, and at once."""
WHOSE = {"tenant_id", "filter"}


def methods() -> Iterator[MethodDescriptor]:
    """Every RPC of the room that people may call."""
    for file in FILES:
        for service in file.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                if f"/{service.full_name}/{method.name}" in EXPOSED:
                    yield method


def lacking(prefixes: tuple[str, ...], field: str) -> list[str]:
    named = [method for method in methods() if method.name.startswith(prefixes)]
    assert len(named) > 3
    return [method.full_name for method in named if field not in method.input_type.fields_by_name]


def fields_of(message: Descriptor) -> set[str]:
    """Names of a message's fields, those of its filter included."""
    inner = [field.message_type for field in message.fields if field.name == "filter"]
    return {*message.fields_by_name, *(name for each in inner for name in each.fields_by_name)}


def test_every_rpc_that_makes_something_can_be_sent_again() -> None:
    assert lacking(("Create",), "request_id") == []


def test_every_rpc_that_changes_something_can_name_the_version_it_means() -> None:
    assert lacking(VERSIONED, "etag") == []


@pytest.mark.parametrize("resource", [tenant_pb2.Tenant, tenant_pb2.Key, teams_pb2.Team, billing_pb2.Budget])
def test_what_can_be_changed_says_its_version(resource: type[tenant_pb2.Tenant]) -> None:
    assert "etag" in resource.DESCRIPTOR.fields_by_name


def test_every_list_comes_in_pages() -> None:
    lists = [method for method in methods() if method.name.startswith("List") and method.name not in WHOLE]
    assert len(lists) > 8
    unpaged = [
        method.full_name
        for method in lists
        if not fields_of(method.input_type) >= PAGING or "next_page_token" not in method.output_type.fields_by_name
    ]
    assert unpaged == []


def test_every_list_can_be_narrowed() -> None:
    lists = [method for method in methods() if method.name.startswith("List") and method.name not in WHOLE]
    whole = [method.name for method in lists if not fields_of(method.input_type) - PAGING - WHOSE]
    # A tenant has few margins, and one chain whose checkpoints are read in their order.
    assert sorted(whole) == ["ListCheckpoints", "ListMargins"]
