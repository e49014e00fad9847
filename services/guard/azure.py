"""Azure AI Content Safety: prompt shields and harm categories, over its REST interface."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from meshkit import egress
from meshkit.egress import Cargo, Destination, Region
from meshkit.errors import EgressRefused
from services.guard.escalation import JudgeFailed
from services.guard.passages import Passage
from services.guard.verdict import Action, DataClass, Finding, RiskLevel

if TYPE_CHECKING:
    import aiohttp

LAYER = "azure"
API_VERSION = "2024-09-01"
LONGEST_TEXT = 10_000
"""Code points that one call takes."""
MOST_CALLS = 5
"""For one text; what is longer is not judged, which is a failure."""
CATEGORIES = ("Hate", "Sexual", "SelfHarm", "Violence")
RISKS = {2: RiskLevel.LOW, 4: RiskLevel.HIGH, 6: RiskLevel.CRITICAL}
"""What its four levels mean here."""
MAY_HOLD = frozenset({egress.DataClass.PUBLIC})
OK = 200


class AzureContentSafety:
    """Asks the service."""

    layer = LAYER

    def __init__(self, http: aiohttp.ClientSession, endpoint: str, key: str, region: Region) -> None:
        """`region` is where the resource processes what it is sent."""
        self.destination = Destination(LAYER, region, MAY_HOLD)
        egress.watch_refusals(LAYER)
        self._http = http
        self._base = f"{endpoint.rstrip('/')}/contentsafety"
        self._headers = {"Ocp-Apim-Subscription-Key": key}

    async def findings(self, passages: Sequence[Passage], cargo: Cargo) -> list[Finding]:
        """What it finds in the words of whoever could mean harm.

        Raises:
            JudgeFailed: If it refuses, says what nobody understands, or may not be sent this: then nothing was sent.
        """
        self._admit(cargo)
        suspects = [each for each in passages if each.attacks and each.text.strip()]
        found = await asyncio.gather(*(self._findings(each.text, each.message_index) for each in suspects))
        return [each for findings in found for each in findings]

    def _admit(self, cargo: Cargo) -> None:
        try:
            self.destination.admit(cargo, self._base)
        except EgressRefused as error:
            raise JudgeFailed(error.reason) from error

    async def _findings(self, text: str, message_index: int) -> list[Finding]:
        pieces = range(0, len(text), LONGEST_TEXT)
        if len(pieces) > MOST_CALLS:
            raise JudgeFailed("text too long")
        judged = await asyncio.gather(*(self._piece(text[start : start + LONGEST_TEXT]) for start in pieces))
        places = [(start, min(start + LONGEST_TEXT, len(text))) for start in pieces]
        return [
            Finding(f"azure.{name}", category, risk, _action(risk), DataClass.PUBLIC, *place, LAYER, 1.0, message_index)
            for place, found in zip(places, judged, strict=True)
            for name, category, risk in found
        ]

    async def _piece(self, text: str) -> list[tuple[str, str, RiskLevel]]:
        analysis, shield = await asyncio.gather(
            self._asked("text:analyze", {"text": text, "categories": CATEGORIES, "outputType": "FourSeverityLevels"}),
            self._asked("text:shieldPrompt", {"userPrompt": text, "documents": []}),
        )
        try:
            return [*_harms(analysis), *_attack(shield)]
        except (KeyError, TypeError) as error:
            raise JudgeFailed("unexpected answer") from error

    async def _asked(self, operation: str, body: dict[str, Any]) -> Any:
        from aiohttp import ClientError  # 8 MB, for those who ask a cloud only

        url = f"{self._base}/{operation}?api-version={API_VERSION}"
        try:
            async with self._http.post(url, json=body, headers=self._headers, allow_redirects=False) as response:
                if response.status != OK:
                    raise JudgeFailed(f"status {response.status}")
                return await response.json()
        except (ClientError, ValueError, OSError) as error:
            raise JudgeFailed(type(error).__name__) from error


def _harms(analysis: Any) -> Iterator[tuple[str, str, RiskLevel]]:
    for found in analysis["categoriesAnalysis"]:
        if found["severity"]:
            name = str(found["category"]).lower()
            yield name, "harmful_content", RISKS.get(found["severity"], RiskLevel.CRITICAL)


def _attack(shield: Any) -> Iterator[tuple[str, str, RiskLevel]]:
    if shield["userPromptAnalysis"]["attackDetected"]:
        yield "prompt_attack", "prompt_injection", RiskLevel.HIGH


def _action(risk: RiskLevel) -> Action:
    return Action.BLOCK if risk >= RiskLevel.HIGH else Action.ALLOW
