"""The body of one scripted stream: its pace, and what the script does to it on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

from tests.support.provider_script import NEVER, Script
from tests.support.scripted_gigachat import GigaChatWire, GigaChatWriter
from tests.support.scripted_openai import ChunkWriter, OpenAIWire
from tests.support.scripted_yandex import YandexWire, YandexWriter

Wire = OpenAIWire | GigaChatWire | YandexWire
Writer = ChunkWriter | GigaChatWriter | YandexWriter


class Cut(Exception):
    """The script says to close the connection here."""


async def stream_pieces(script: Script, wire: Wire, writer: Writer) -> AsyncIterator[bytes]:
    """The body piece by piece, none of them empty: that would end it."""
    async for piece in _verbatim(script) if script.verbatim else _paced(script, wire, writer):
        for part in sliced(piece, script.piece_bytes):
            yield part


def gap_seconds(script: Script) -> float:
    """Time between two tokens."""
    return 1 / script.tokens_per_second if script.tokens_per_second else 0


def sliced(piece: bytes, size: int) -> Iterator[bytes]:
    """The piece in parts of so many bytes; 0 leaves it whole."""
    return (piece[start : start + (size or len(piece))] for start in range(0, len(piece), size or len(piece) or 1))


async def _paced(script: Script, wire: Wire, writer: Writer) -> AsyncIterator[bytes]:
    """The chunks of a reply; those that need no wait between go out as one piece."""
    ready = [writer.opening()]
    for number, chunk in enumerate(writer.tokens()):
        if gap := script.ttft_ms / 1000 if number == 0 else gap_seconds(script):
            yield b"".join(ready)
            ready.clear()
            await asyncio.sleep(gap)
        if _is_disturbed(script, number):
            yield b"".join(ready)
            ready.clear()
            yield await _disturbance(script, wire, number)
        ready.append(chunk)
    ready.append(writer.ending())
    if not script.omit_done:
        ready.append(wire.done)
    yield b"".join(ready)


async def _verbatim(script: Script) -> AsyncIterator[bytes]:
    for piece in sliced(script.verbatim.encode(), script.verbatim_bytes):
        yield piece
    if script.stall_after_chunks != NEVER:
        await asyncio.Event().wait()


def _is_disturbed(script: Script, number: int) -> bool:
    return number in (script.cut_after_chunks, script.stall_after_chunks, script.malformed_chunk, script.error_chunk)


async def _disturbance(script: Script, wire: Wire, number: int) -> bytes:
    """Do what the script says happens before token `number`."""
    if number == script.cut_after_chunks:
        raise Cut
    if number == script.stall_after_chunks:
        await asyncio.Event().wait()
    if number == script.malformed_chunk:
        return wire.malformed
    return wire.broken(script.error_message, script.error_code or None)
