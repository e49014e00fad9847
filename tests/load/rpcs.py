"""One RPC per service to put under load, read from the ghz configurations: `tests/load/ghz/<service>.json`."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import grpc
from google.protobuf import json_format, message_factory
from google.protobuf.message import Message

FOLDER = Path(__file__).parent / "ghz"


@dataclass(frozen=True, slots=True)
class Rpc:
    """A ghz configuration whose `${VARIABLES}` are filled in."""

    config: Mapping[str, Any]

    @property
    def path(self) -> str:
        """The HTTP/2 path."""
        return f"/{self.config['call']}"

    @property
    def host(self) -> str:
        """Where to call, as host:port."""
        return str(self.config["host"])

    @property
    def varies(self) -> bool:
        """Whether every request must differ from the one before."""
        return "{{" in json.dumps(self.config["data"])

    @property
    def timeout_seconds(self) -> float:
        """Longest one call may take."""
        return float(self.config["timeout"].removesuffix("s"))

    def metadata(self, number: int = 0) -> list[tuple[str, str]]:
        """Metadata of the call with this number."""
        return list(_rendered(self.config["metadata"], number).items())

    def request(self, number: int = 0) -> Message:
        """The request with this number.

        Raises:
            json_format.ParseError: If the data is no such request.
        """
        return json_format.ParseDict(_rendered(self.config["data"], number), self._class("input_type")())

    async def call(self, channel: grpc.aio.Channel, number: int = 0) -> Message:
        """Call once; of a stream, the last message.

        Raises:
            grpc.aio.AioRpcError: If the service refuses.
        """
        coders: dict[str, Any] = {
            "request_serializer": self._class("input_type").SerializeToString,
            "response_deserializer": self._class("output_type").FromString,
        }
        options: dict[str, Any] = {"metadata": self.metadata(number), "timeout": self.timeout_seconds}
        if not self._method().server_streaming:
            unary = channel.unary_unary(self.path, **coders)
            answer: Message = await unary(self.request(number), **options)
            return answer
        stream = channel.unary_stream(self.path, **coders)
        steps: list[Message] = [step async for step in stream(self.request(number), **options)]
        return steps[-1]

    def _class(self, side: str) -> type[Message]:
        return message_factory.GetMessageClass(getattr(self._method(), side))

    def _method(self) -> Any:
        service, _, method = self.config["call"].partition("/")
        package, _, name = service.rpartition(".")
        stubs = importlib.import_module(f"{package}.{package.split('.')[1]}_pb2")
        return stubs.DESCRIPTOR.services_by_name[name].methods_by_name[method]


def read_rpc(name: str, environment: Mapping[str, str]) -> Rpc:
    """Read one configuration.

    Raises:
        KeyError: If it asks for a variable that `environment` lacks.
    """
    return Rpc(json.loads(Template((FOLDER / f"{name}.json").read_text()).substitute(environment)))


def _rendered(part: Mapping[str, Any], number: int) -> Any:
    """Fill in ghz's own variables."""
    text = json.dumps(part).replace("{{.RequestNumber}}", str(number))
    return json.loads(text.replace("{{.TimestampUnix}}", str(time.time_ns())))
