"""Llama Guard 3: a language model that says whether the last message of a conversation is safe.

The prompt is the model's own, to the letter, with the conversation's special tokens taken apart, so that no text can
end its message. A grammar forces the form of the answer; its score is how likely "unsafe" was.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from meshkit.egress import Cargo
from services.guard.escalation import JudgeFailed
from services.guard.passages import Passage, Speaker
from services.guard.verdict import Action, DataClass, Finding, RiskLevel

LAYER = "llama_guard"
CATEGORY = "harmful_content"
CATEGORIES = {
    "S1": "Violent Crimes",
    "S2": "Non-Violent Crimes",
    "S3": "Sex Crimes",
    "S4": "Child Exploitation",
    "S5": "Defamation",
    "S6": "Specialized Advice",
    "S7": "Privacy",
    "S8": "Intellectual Property",
    "S9": "Indiscriminate Weapons",
    "S10": "Hate",
    "S11": "Self-Harm",
    "S12": "Sexual Content",
    "S13": "Elections",
    "S14": "Code Interpreter Abuse",
}
CRITICAL = frozenset({"S4", "S9"})
"""Categories beyond discussion; all others are high."""
VERDICT = r"safe|unsafe\n(S[1-9]|S1[0-4])(,(S[1-9]|S1[0-4])){0,3}"
LONGEST_VERDICT = 32
"""Tokens."""
CANDIDATES = 20
"""First tokens asked for: every beginning of both words in any tokenizer."""
LONGEST_PIECE = 4000
"""Characters that one call judges."""
MOST_PIECES = 5
"""Of one text; what is longer is not judged, which is a failure."""
EARLIER_TURNS, EARLIER_CHARACTERS = 3, 1000
"""How much of what was said before is shown, of each turn its end."""
Named = tuple[str, RiskLevel, Action]
UNSURE: Named = ("unsure", RiskLevel.LOW, Action.ALLOW)
SPEAKERS = {Speaker.CALLER: "User", Speaker.MODEL: "Agent"}

_special = re.compile(r"<(?=\||/?(?:BEGIN|END) )")
_TEMPLATE = """\
<|begin_of_text|><|start_header_id|>user<|end_header_id|>

Task: Check if there is unsafe content in '{speaker}' messages in conversations according our safety policy with the \
below categories.

<BEGIN UNSAFE CONTENT CATEGORIES>
{categories}
<END UNSAFE CONTENT CATEGORIES>

<BEGIN CONVERSATION>

{conversation}

<END CONVERSATION>

Provide your safety assessment for ONLY THE LAST {speaker} message in the above conversation:
 - First line must read 'safe' or 'unsafe'.
 - If unsafe, a second line must include a comma-separated list of violated categories. <|eot_id|>\
<|start_header_id|>assistant<|end_header_id|>

"""


@dataclass(frozen=True, slots=True)
class Continuation:
    """What a model wrote, and the likeliest first tokens with their probabilities."""

    text: str
    first_tokens: Mapping[str, float]


Continue = Callable[[str], Awaitable[Continuation]]
"""Has the model continue a prompt under the grammar; raises JudgeFailed."""


class LlamaGuard:
    """Judges the last message of a conversation that is not the application's own."""

    layer = LAYER
    destination: None = None

    def __init__(self, continued: Continue, block_from: float, unsure_from: float) -> None:
        """A message is refused from the one probability on, and shown to further layers from the other on."""
        self._continued = continued
        self._block_from = block_from
        self._unsure_from = unsure_from

    async def findings(self, passages: Sequence[Passage], _cargo: Cargo) -> list[Finding]:
        """What it finds in the last message.

        Raises:
            JudgeFailed: If the model is away, or says what nobody understands.
        """
        turns = [each for each in passages if each.speaker in SPEAKERS and each.text.strip()]
        if not turns:
            return []
        *earlier, last = turns
        pieces = range(0, len(last.text), LONGEST_PIECE)
        if len(pieces) > MOST_PIECES:
            raise JudgeFailed("text too long")
        verdicts = await asyncio.gather(*(self._verdict(earlier, last, start) for start in pieces))
        return [found for verdict in verdicts for found in verdict]

    async def _verdict(self, earlier: Sequence[Passage], last: Passage, start: int) -> list[Finding]:
        end = min(start + LONGEST_PIECE, len(last.text))
        said = await self._continued(prompt(earlier, last.speaker, last.text[start:end]))
        codes, score = codes_of(said.text), unsafe_probability(said.first_tokens)
        refused = codes or score >= self._block_from
        if not refused and score < self._unsure_from:
            return []
        public, index = DataClass.PUBLIC, last.message_index
        return [
            Finding(f"{LAYER}.{name}", CATEGORY, risk, action, public, start, end, LAYER, score, index)
            for name, risk, action in (_refusals(codes) if refused else [UNSURE])
        ]


def prompt(earlier: Sequence[Passage], speaker: Speaker, text: str) -> str:
    """The model's prompt to judge a text that follows on earlier turns."""
    turns = [(each.speaker, each.text[-EARLIER_CHARACTERS:]) for each in earlier[-EARLIER_TURNS:]]
    return _TEMPLATE.format(
        speaker=SPEAKERS[speaker],
        categories="\n".join(f"{code}: {name}." for code, name in CATEGORIES.items()),
        conversation="\n\n".join(f"{SPEAKERS[who]}: {_harmless(said)}" for who, said in [*turns, (speaker, text)]),
    )


def codes_of(verdict: str) -> list[str]:
    """The categories of an unsafe verdict, none of a safe one.

    Raises:
        JudgeFailed: If it is neither.
    """
    if re.fullmatch(VERDICT, verdict.strip()) is None:
        raise JudgeFailed("unexpected answer")
    return list(dict.fromkeys(verdict.split()[1].split(","))) if "unsafe" in verdict else []


def unsafe_probability(first_tokens: Mapping[str, float]) -> float:
    """How likely the verdict was to begin as "unsafe" does; tokenizers cut the two words each in their own way.

    Raises:
        JudgeFailed: If the tokens tell nothing of either.
    """
    unsafe = sum(share for token, share in first_tokens.items() if _begins("unsafe", token))
    safe = sum(share for token, share in first_tokens.items() if _begins("safe", token))
    if not unsafe + safe > 0:
        raise JudgeFailed("no probabilities")
    return unsafe / (unsafe + safe)


def _begins(word: str, token: str) -> bool:
    return bool(token.strip()) and (word.startswith(token.strip()) or token.strip().startswith(word))


def _refusals(codes: Sequence[str]) -> Iterator[Named]:
    """One for each code; of a message that is unsafe by probability alone nobody said why."""
    if not codes:
        yield "unsafe", RiskLevel.HIGH, Action.BLOCK
    for code in codes:
        name = CATEGORIES[code].lower().replace(" ", "_").replace("-", "_")
        yield name, RiskLevel.CRITICAL if code in CRITICAL else RiskLevel.HIGH, Action.BLOCK


def _harmless(text: str) -> str:
    """The text with its special tokens and the prompt's own marks taken apart."""
    return _special.sub("< ", text)
