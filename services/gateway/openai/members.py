"""Takes a JSON object apart without losing a byte of what is passed on."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from meshkit.errors import FieldInvalid

Value = TypeVar("Value")

MOST_MEMBERS = 256
MOST_OBJECTS = 1024
LONGEST_NAME = 100
"""Characters of a caller's own words that an error repeats."""

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_list = msgspec.json.Decoder(list[msgspec.Raw])


class Members:
    """The top-level members of a request body, each as its original bytes; a member that is null counts as absent."""

    def __init__(self, body: bytes) -> None:
        try:
            members = _object.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise FieldInvalid("body", f"must be a JSON object ({error})") from error
        if len(members) > MOST_MEMBERS:
            raise FieldInvalid("body", f"must not have more than {MOST_MEMBERS} members")
        self._raw = {name: raw for name, value in members.items() if (raw := bytes(value)) != b"null"}

    def __contains__(self, name: str) -> bool:
        return name in self._raw

    def take(self, name: str, decoder: msgspec.json.Decoder[Value]) -> Value | None:
        """Remove a member and decode it; None when absent. Raises FieldInvalid naming the value at fault."""
        raw = self._raw.pop(name, None)
        return None if raw is None else decoded(raw, decoder, name)

    def take_json(self, name: str, beginnings: str, kinds: str) -> str:
        """Remove a member and return its JSON as it came; "" when absent.

        Raises FieldInvalid, naming the `kinds` it may be, unless its JSON begins with one of `beginnings`.
        """
        raw = self._raw.pop(name, None)
        return "" if raw is None else _json(raw, name, beginnings, kinds)

    def take_objects(self, name: str) -> list[str]:
        """Remove a member that is a list of objects and return the JSON of each as it came."""
        items = self.take(name, _list) or []
        if len(items) > MOST_OBJECTS:
            raise FieldInvalid(name, f"must hold at most {MOST_OBJECTS} objects")
        return [_json(bytes(item), f"{name}[{index}]", "{", "an object") for index, item in enumerate(items)]

    def take_rest(self) -> dict[str, str]:
        """Remove everything left, each as the JSON it came in."""
        rest = {name: _text(raw, name) for name, raw in self._raw.items()}
        self._raw.clear()
        return rest


def decoded(raw: bytes | msgspec.Raw, decoder: msgspec.json.Decoder[Value], field: str) -> Value:
    """Decode JSON; raises FieldInvalid naming the value at fault, such as `messages[0].role`."""
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message, _, path = str(error).partition(" - at `$")
        raise FieldInvalid(field + path.rstrip("`"), message[:LONGEST_NAME]) from error


def _json(raw: bytes, field: str, beginnings: str, kinds: str) -> str:
    text = _text(raw, field)
    if text[0] not in beginnings:
        raise FieldInvalid(field, f"must be {kinds}")
    return text


def _text(raw: bytes, field: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise FieldInvalid(field[:LONGEST_NAME], "must be UTF-8") from error
