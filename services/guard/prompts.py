"""What of a prompt the guard reads: every text of every message, joined; and the same prompt with texts replaced."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from google.protobuf.message import Message

from llmmesh.chat.v1 import chat_pb2
from services.guard.masking import Placeholders, maskable, masked
from services.guard.passages import Passage, Speaker
from services.guard.verdict import MOST_OF_A_RULE, DataClass, Finding

SPEAKERS = {
    chat_pb2.ROLE_SYSTEM: Speaker.APPLICATION,
    chat_pb2.ROLE_DEVELOPER: Speaker.APPLICATION,
    chat_pb2.ROLE_ASSISTANT: Speaker.MODEL,
}
"""Anybody else may speak with an attacker's words."""
JOINT = "\n"


def passage(message: chat_pb2.ChatMessage, index: int) -> Passage:
    """Everything a message says."""
    return Passage(JOINT.join(_texts(message)), SPEAKERS.get(message.role, Speaker.CALLER), index)


def masked_prompt(
    messages: Sequence[chat_pb2.ChatMessage], findings: Sequence[Finding], *, personal: bool = True
) -> tuple[list[chat_pb2.ChatMessage], dict[str, str], DataClass]:
    """The prompt with placeholders, what they stand for, and how sensitive what is left is.

    What rules mask is hidden, and with `personal` all personal data and secrets.
    """
    by_message: defaultdict[int, list[Finding]] = defaultdict(list)
    for found in findings:
        by_message[found.message_index].append(found)
    placeholders = Placeholders(text for message in messages for text in _texts(message))
    hidden = {index: maskable(found, personal=personal) for index, found in by_message.items()}
    copies = [_copied(message, hidden.get(index, []), placeholders) for index, message in enumerate(messages)]
    left = [found for index, each in by_message.items() for found in each if found not in hidden[index]]
    if max(Counter(found.rule for found in findings).values(), default=0) >= MOST_OF_A_RULE:
        left = list(findings)  # there may be more than was named
    data_class = max((found.data_class for found in left), default=DataClass.PUBLIC)
    return copies, placeholders.originals(), data_class


def _texts(message: chat_pb2.ChatMessage) -> list[str]:
    """Every text of a message; an image inside the message is none."""
    texts: list[str] = []

    def take(text: str) -> str:
        texts.append(text)
        return text

    _visit(message, take)
    return texts


def _copied(
    message: chat_pb2.ChatMessage, findings: Sequence[Finding], placeholders: Placeholders
) -> chat_pb2.ChatMessage:
    if not findings:
        return message
    copy = chat_pb2.ChatMessage()
    copy.CopyFrom(message)
    place = 0

    def hide(text: str) -> str:
        nonlocal place
        start, place = place, place + len(text) + len(JOINT)
        return masked(text, _inside(findings, start, start + len(text)), placeholders)

    _visit(copy, hide)
    return copy


def _inside(findings: Sequence[Finding], start: int, end: int) -> Iterator[Finding]:
    """The parts of findings that lie in one text, counted from its beginning."""
    for found in findings:
        first, last = max(found.start, start), min(found.end, end)
        if first < last:
            yield replace(found, start=first - start, end=last - start)


def _visit(message: chat_pb2.ChatMessage, change: Callable[[str], str]) -> None:
    """Give every text of a message to `change`, in order, and put in its place what comes back when it differs."""
    for part in message.content:
        if part.image_url.url.startswith("data:"):
            continue
        name = part.WhichOneof("part") or "text"
        holder, field = (part.image_url, "url") if name == "image_url" else (part, name)
        _put(holder, field, change)
    for call in message.tool_calls:
        _put(call, "name", change)
        _put(call, "arguments", change)
    if message.name:
        _put(message, "name", change)


def _put(holder: Message, field: str, change: Callable[[str], str]) -> None:
    text = getattr(holder, field)
    changed = change(text)
    if changed != text:
        setattr(holder, field, changed)
