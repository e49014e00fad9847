"""Has the guard model judge an answer beside its stream, in windows.

By default no piece waits for it: what it finds unsafe stops the answer late, at most `MOST_AHEAD` characters and one
judgement after it was said. A tenant may have its answers held instead, until each part of them was judged. The end of
an answer waits for its last window in any case.
"""

from __future__ import annotations

import asyncio
from asyncio import FIRST_COMPLETED
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TypeAlias

from services.guard.escalation import AnswerJudge
from services.guard.metrics import LATE_CHARACTERS
from services.guard.passages import Passage, Speaker
from services.guard.stream import AnswerWatch, Release
from services.guard.verdict import Action, Finding, Verdict, merge, undecided
from services.guard.windows import Window, Windows

MOST_AHEAD = 8000
"""Characters that were not judged yet; where there are more, the next piece waits for the guard model."""
Piece: TypeAlias = tuple[str, bool]
"""Text, and whether it is the last."""
NOTHING: Piece = ("", False)


class AnswerGuard:
    """One answer on its way: rules look at every piece, the guard model at what they release, if it is asked at all."""

    def __init__(self, watch: AnswerWatch, model: ModelWatch | None = None) -> None:
        self._watch = watch
        self._model = model

    def pieces(self, said: AsyncGenerator[Piece, None]) -> AsyncGenerator[Piece, None]:
        """What is to be fed: what is said, and a piece of nothing whenever the model has spoken."""
        return self._model.beside(said) if self._model else said

    async def feed(self, text: str, *, last: bool = False) -> Release:
        """Take the next piece; returns what may be shown. Nothing may follow a verdict."""
        release = self._watch.feed(text, last=last)
        return await self._model.judged(release, self._watch) if self._model else release

    async def aclose(self) -> None:
        """Let go of the matchers' memory and of a judgement under way."""
        self._watch.close()
        if self._model:
            self._model.hang_up()


class ModelWatch:
    """The guard model beside one answer: one judgement under way, of all that was said meanwhile the next."""

    def __init__(self, judge: AnswerJudge, conversation: Sequence[Passage], *, hold: bool) -> None:
        """`conversation` is what was said before the answer; with `hold` nothing is shown before it was judged."""
        self._judge = judge
        self._conversation = conversation
        self._windows = Windows(hold=hold)
        self._hold = hold
        self._window = Window("", 0)
        self._call: asyncio.Task[tuple[Verdict, bool]] | None = None
        self._found: list[Finding] = []
        self._seconds: dict[str, float] = {}
        self._action = Action.ALLOW
        self._given_up = False

    async def beside(self, said: AsyncGenerator[Piece, None]) -> AsyncGenerator[Piece, None]:
        """What is said, and a piece of nothing whenever the model has spoken meanwhile."""
        async with aclosing(said):
            coming = asyncio.ensure_future(anext(said, None))
            try:
                while not (coming.done() and coming.result() is None):
                    if coming.done() and (piece := coming.result()):
                        yield piece
                        coming = asyncio.ensure_future(anext(said, None))
                    elif self._call and self._call.done():
                        yield NOTHING
                    await asyncio.wait([each for each in (coming, self._call) if each], return_when=FIRST_COMPLETED)
            finally:
                coming.cancel()

    async def judged(self, release: Release, rules: AnswerWatch) -> Release:
        """What of a release of the rules may be shown now; a verdict where the model has one that ends the answer."""
        if self._given_up or (release.verdict and release.verdict.action > Action.MASK):
            self.hang_up()
            return self._ended(release)
        behind = self._windows.ahead > MOST_AHEAD
        shown = self._windows.take(release.text)
        passed = await self._heard(waits=behind, last=release.verdict is not None)
        if self._action > Action.MASK:
            return Release(passed, self._joined(rules.verdict()))
        return replace(self._ended(release), text=passed + shown)

    def hang_up(self) -> None:
        """Ask for nothing more, and listen no longer."""
        if self._call:
            self._call.cancel()
            self._call = None

    def _ended(self, release: Release) -> Release:
        """The release as it is; where rules stop an answer that is held, what was not judged is never shown."""
        if release.verdict is None:
            return release
        unjudged = self._hold and not self._given_up and release.verdict.action > Action.MASK
        return replace(release, text="" if unjudged else release.text, verdict=self._joined(release.verdict))

    async def _heard(self, *, waits: bool, last: bool) -> str:
        """Ask, and take in what was answered or is waited for, at the end of all; returns what may be shown."""
        passed, deadline = "", self._judge.deadline() if last else None
        while self._action <= Action.MASK and not self._given_up:
            if self._call is None and not self._asks(deadline, last=last):
                break
            assert self._call
            if not (waits or last or self._call.done()):
                break
            passed, waits = passed + self._noted(*await self._call), False
        return passed

    def _asks(self, deadline: float | None, *, last: bool) -> bool:
        """Have the next window judged, in time for a deadline that the rest of the answer shares; False without one."""
        window = self._windows.next(last=last)
        if window is None:
            return False
        self._window = window
        passages = [*self._conversation, Passage(window.text, Speaker.MODEL)]
        self._call = asyncio.create_task(self._judge.verdict(passages, deadline or self._judge.deadline()))
        return True

    def _noted(self, verdict: Verdict, judged: bool) -> str:
        self._call, self._action = None, verdict.action
        start = self._window.start
        self._found += (replace(each, start=each.start + start, end=each.end + start) for each in verdict.findings)
        for layer, seconds in verdict.layer_seconds.items():
            self._seconds[layer] = self._seconds.get(layer, 0.0) + seconds
        if self._action is Action.BLOCK and not self._hold:
            LATE_CHARACTERS.observe(self._windows.ahead)
        if self._action > Action.MASK:
            return ""
        self._given_up = not judged
        return self._windows.passed() if judged else self._windows.unjudged()

    def _joined(self, verdict: Verdict) -> Verdict:
        """The verdict of the rules with all that the model said."""
        findings, seconds = [*verdict.findings, *self._found], {**verdict.layer_seconds, **self._seconds}
        if Action.ERROR in (verdict.action, self._action):
            return undecided(seconds, *findings)
        return merge(findings, seconds).at_least(verdict.data_class)
