"""What the protos say about every RPC: where it lives and who may reach it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from google.api import annotations_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto

from llmmesh.access.v1 import access_pb2
from meshkit.access import role_name

DESCRIPTOR_SET = Path(__file__).with_name("mesh.binpb")

ROOMS = ("gateway", "router", "cache", "guard", "billing", "inference")

_LODGERS = {"tenant": "billing", "audit": "billing", "session": "gateway"}
"""Packages that live in the process of another room."""


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC."""

    service: str
    """Full name, such as `llmmesh.cache.v1.CacheService`."""
    name: str
    room: str
    """The process that serves it."""
    streams: bool
    """Whether the answer is a stream."""
    exposed: bool
    """Whether the edge routes it: only RPCs with an access rule are for the outside."""
    anonymous: bool
    """Whether it needs no key."""
    roles: tuple[str, ...]
    """Words of the `roles` claim, one of which a key needs."""
    rest: tuple[str, ...]
    """Verbs and paths it is reached by over REST, such as `GET /v1/tenants/{tenant_id}`."""

    @property
    def path(self) -> str:
        """The HTTP/2 path of a native call."""
        return f"/{self.service}/{self.name}"


def read_methods(descriptor_set: Path = DESCRIPTOR_SET) -> list[Method]:
    """Every RPC of our own packages, in the order of the protos."""
    files = FileDescriptorSet.FromString(descriptor_set.read_bytes()).file
    return [method for file in files if file.package.startswith("llmmesh.") for method in _of_file(file)]


def services_of(methods: Sequence[Method]) -> list[str]:
    """The full names of their services, each once."""
    return list(dict.fromkeys(method.service for method in methods))


def _of_file(file: FileDescriptorProto) -> list[Method]:
    package = file.package.split(".")[1]
    room = _LODGERS.get(package, package)
    return [
        _method(f"{file.package}.{service.name}", room, method) for service in file.service for method in service.method
    ]


def _method(service: str, room: str, method: MethodDescriptorProto) -> Method:
    rule = method.options.Extensions[access_pb2.rule]
    return Method(
        service=service,
        name=method.name,
        room=room,
        streams=method.server_streaming,
        exposed=method.options.HasExtension(access_pb2.rule),
        anonymous=rule.anonymous,
        roles=tuple(role_name(role) for role in rule.roles),
        rest=tuple(_rest(method)),
    )


def _rest(method: MethodDescriptorProto) -> Iterator[str]:
    rule = method.options.Extensions[annotations_pb2.http]
    for binding in (rule, *rule.additional_bindings):
        verb = binding.WhichOneof("pattern")
        if verb:
            yield f"{verb.upper()} {getattr(binding, verb)}"
