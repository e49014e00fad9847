"""Azure AI Content Safety as it answers over the wire, with knobs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

KEY = "0123456789abcdef0123456789abcdef"
VERSION = "2024-09-01"
CATEGORIES = ["Hate", "Sexual", "SelfHarm", "Violence"]


@dataclass
class ScriptedAzure:
    """What it says, and what it was asked."""

    url: str = ""
    attack: bool = False
    severities: dict[str, int] = field(default_factory=dict)
    status: int = 200
    silent: bool = False
    body: Any = None
    """Said instead of a proper answer."""
    texts: list[str] = field(default_factory=list)

    def reset(self) -> None:
        """All knobs and counters as new."""
        self.__init__(self.url)  # type: ignore[misc]

    async def analyze(self, request: web.Request) -> web.Response:
        """`text:analyze`."""
        body = await self._received(request)
        assert body["outputType"] == "FourSeverityLevels"
        assert body["categories"] == CATEGORIES
        self.texts.append(body["text"])
        found = [{"category": name, "severity": self.severities.get(name, 0)} for name in CATEGORIES]
        return self._reply({"blocklistsMatch": [], "categoriesAnalysis": found})

    async def shield(self, request: web.Request) -> web.Response:
        """`text:shieldPrompt`."""
        body = await self._received(request)
        assert set(body) == {"userPrompt", "documents"}
        return self._reply({"userPromptAnalysis": {"attackDetected": self.attack}, "documentsAnalysis": []})

    async def _received(self, request: web.Request) -> Any:
        assert request.headers["Ocp-Apim-Subscription-Key"] == KEY
        assert request.query["api-version"] == VERSION
        if self.silent:
            await asyncio.Event().wait()
        body = await request.json()
        assert len(body.get("text", body.get("userPrompt"))) <= 10_000
        return body

    def _reply(self, said: Any) -> web.Response:
        if self.status != 200:
            said = {"error": {"code": "TooManyRequests", "message": "Rate limit is exceeded."}}
        return web.json_response(said if self.body is None else self.body, status=self.status)


@asynccontextmanager
async def scripted_azure() -> AsyncIterator[ScriptedAzure]:
    """A running one."""
    azure = ScriptedAzure()
    app = web.Application()
    app.router.add_post("/contentsafety/text:analyze", azure.analyze)
    app.router.add_post("/contentsafety/text:shieldPrompt", azure.shield)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    azure.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield azure
    finally:
        await runner.cleanup()
