"""What the protos say about every RPC: where it lives and who may reach it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto

from llmmesh.access.v1 import access_pb2

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
    return Method(
        service=service,
        name=method.name,
        room=room,
        streams=method.server_streaming,
        exposed=method.options.HasExtension(access_pb2.rule),
        anonymous=method.options.Extensions[access_pb2.rule].anonymous,
    )
