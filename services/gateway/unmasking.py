"""Puts the caller's own words back where an answer has their placeholders, also where one is split over pieces."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import TypeAlias

from llmmesh.chat.v1 import chat_pb2
from llmmesh.router.v1 import router_pb2
from services.gateway.tee import Piece

Place: TypeAlias = int | str
"""The text, the reasoning, or the arguments of the tool call of this index."""


class Unmasking:
    """The placeholders of one prompt, on their way back."""

    def __init__(self, originals: Mapping[str, str], *, json_text: bool = False) -> None:
        """`originals` by placeholder; `json_text` when the answer is JSON, in which they are to be escaped."""
        self._plain = dict(originals)
        self._escaped = {name: json.dumps(each, ensure_ascii=False)[1:-1] for name, each in originals.items()}
        self._text = self._escaped if json_text else self._plain
        self._pattern = re.compile("|".join(map(re.escape, originals)) or r"(?!)")
        self._beginnings = frozenset(name[:length] for name in originals for length in range(1, len(name)))
        self._longest = max(map(len, originals), default=1) - 1
        self._held: defaultdict[Place, str] = defaultdict(str)

    async def through(self, pieces: AsyncGenerator[Piece, None]) -> AsyncGenerator[Piece, None]:
        """The same pieces with the caller's words; what is held when they end, or break off, comes before the end.

        Closing this generator closes `pieces` at once.
        """
        try:
            async with aclosing(pieces):
                async for piece in pieces:
                    if isinstance(piece, router_pb2.Finished):
                        for rest in self.rest():
                            yield rest
                    yield self.restored(piece) if isinstance(piece, chat_pb2.Delta) else piece
        except Exception:
            for rest in self.rest():
                yield rest
            raise

    def restored(self, delta: chat_pb2.Delta) -> chat_pb2.Delta:
        """A piece with what may be said of it now."""
        calls = [
            chat_pb2.ToolCallDelta(
                index=call.index, id=call.id, name=call.name, arguments=self._feed(call.index, call.arguments)
            )
            for call in delta.tool_calls
        ]
        text, reasoning = self._feed("text", delta.text), self._feed("reasoning", delta.reasoning)
        return chat_pb2.Delta(text=text, reasoning=reasoning, tool_calls=calls)

    def rest(self) -> list[chat_pb2.Delta]:
        """What was held for a placeholder that never came."""
        held, self._held = self._held, defaultdict(str)
        return [_delta(place, text) for place, text in held.items() if text]

    def _feed(self, place: Place, text: str) -> str:
        if not text:
            return ""
        originals = self._escaped if isinstance(place, int) else self._text if place == "text" else self._plain
        whole = self._held[place] + text
        keep = self._open_length(whole)
        self._held[place] = whole[len(whole) - keep :]
        return self._pattern.sub(lambda found: originals[found[0]], whole[: len(whole) - keep])

    def _open_length(self, text: str) -> int:
        """How much of the end could still become a placeholder."""
        for length in range(min(self._longest, len(text)), 0, -1):
            if text[-length:] in self._beginnings:
                return length
        return 0


def _delta(place: Place, text: str) -> chat_pb2.Delta:
    if isinstance(place, int):
        return chat_pb2.Delta(tool_calls=[chat_pb2.ToolCallDelta(index=place, arguments=text)])
    return chat_pb2.Delta(text=text) if place == "text" else chat_pb2.Delta(reasoning=text)
