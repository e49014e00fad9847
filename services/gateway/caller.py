"""Who asks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from uuid import uuid4

from llmmesh.chat.v1 import chat_pb2
from meshkit.errors import FieldInvalid
from meshkit.identity import Identity, current_identity, enter_identity
from services.gateway.exchange import DataClass

CLASS_HEADER = "x-llmmesh-data-class"
DATA_CLASSES = {name.removeprefix("DATA_CLASS_").lower(): value for name, value in chat_pb2.DataClass.items() if value}
LONGEST_REQUEST_ID = 200


def identified() -> Identity:
    """The caller of the RPC being served, with a request id; what is called from here on carries it too."""
    identity = current_identity()
    if not 0 < len(identity.request_id) <= LONGEST_REQUEST_ID:
        identity = replace(identity, request_id=str(uuid4()))
        enter_identity(identity)
    return identity


def stated_data_class(
    metadata: Iterable[tuple[str, str | bytes]] | None, in_message: DataClass = chat_pb2.DATA_CLASS_UNSPECIFIED
) -> DataClass:
    """How sensitive the caller says the request is: the stricter of header and message.

    Raises:
        FieldInvalid: If either names no class.
    """
    words = [value for name, value in metadata or () if name == CLASS_HEADER and isinstance(value, str)]
    if unknown := [word for word in words if word.lower() not in DATA_CLASSES]:
        raise FieldInvalid(CLASS_HEADER, f"must be one of {', '.join(DATA_CLASSES)}, not {unknown[0][:40]!r}")
    return max((checked_data_class(in_message), *(DATA_CLASSES[word.lower()] for word in words)))


def checked_data_class(in_message: DataClass) -> DataClass:
    """A class as a message has it, which can hold any number. Raises FieldInvalid for one that is no class.

    The guard cannot judge by such a number, nor the audit log write it down.
    """
    if in_message and in_message not in DATA_CLASSES.values():
        raise FieldInvalid("data_class", f"must be one of {', '.join(DATA_CLASSES)}, not {in_message}")
    return in_message
