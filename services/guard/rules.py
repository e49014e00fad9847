"""What a rule of a pack says."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from services.guard.checksums import CHECKS
from services.guard.verdict import Action, DataClass, Direction, RiskLevel

Level = TypeVar("Level", RiskLevel, Action, DataClass)


class Category(StrEnum):
    """What kind of thing a rule finds."""

    PROMPT_INJECTION = "prompt_injection"
    PERSONAL_DATA = "personal_data"
    SECRET = "secret"  # noqa: S105 - the name of a category
    ORGANISATION = "organisation"
    CONFIDENTIAL = "confidential"


def _named(levels: type[Level]) -> BeforeValidator:
    """Read a level by its name in lower case, as packs write it."""

    def read(name: object) -> object:
        by_name = {level.name.lower(): level for level in levels}
        if name not in by_name:
            raise ValueError(f"must be one of {', '.join(by_name)}")
        return by_name[str(name)]

    return BeforeValidator(read)


class Rule(BaseModel):
    """One rule: what to look for, on which side, and what it means when found."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, Field(pattern=r"^[a-z0-9_]+(\.[a-z0-9_]+)+$")]
    """Name in detections, such as "injection.override.en"."""
    category: Category
    """What kind of thing it finds."""
    languages: Annotated[tuple[str, ...], Field(min_length=1)]
    """Languages it was written for; "any" for numbers and keys."""
    direction: Literal["input", "output", "both"]
    """Which side it applies to."""
    severity: Annotated[RiskLevel, _named(RiskLevel)]
    """How bad a match is."""
    action: Annotated[Action, _named(Action)] = Action.ALLOW
    """What a match does: allow (report only), mask (a placeholder takes its place) or block."""
    data_class: Annotated[DataClass, _named(DataClass)] = DataClass.PUBLIC
    """How sensitive a text with a match is."""
    phrases: tuple[str, ...] = ()
    """Words in order, in the language of `phrases.py`; for prompts only, for they have no greatest length."""
    patterns: tuple[str, ...] = ()
    """Regular expressions over folded text, in Hyperscan's syntax."""
    case_sensitive: bool = False
    """Whether the case of Latin letters in `patterns` matters."""
    max_length: Annotated[int | None, Field(ge=1, le=256)] = None
    """Longest possible match in characters: what the end of a streamed answer may be held back for."""
    check: str | None = None
    """Checksum that confirms a match of `patterns`, by its name in `checksums.CHECKS`."""
    unless: tuple[str, ...] = ()
    """Phrases that excuse a match they touch."""
    final: bool = True
    """Whether a match is no other layer's to overrule; attacks' words stand in innocent prompts too."""
    only_decoded: bool = False
    """Counts only inside text that was encoded, where innocent reasons are rare."""
    must_match: Annotated[tuple[str, ...], Field(min_length=1)]
    """Texts the rule has to find; checked at every start."""
    must_not_match: Annotated[tuple[str, ...], Field(min_length=1)]
    """Texts the rule must leave alone; checked at every start."""

    @property
    def is_attack(self) -> bool:
        """Whether it looks for an attack, which only those can mount who do not own the application."""
        return self.category is Category.PROMPT_INJECTION

    def applies_to(self, direction: Direction) -> bool:
        """Whether it looks at texts of this side."""
        return self.direction in ("both", direction.name.lower())

    @model_validator(mode="after")
    def _hangs_together(self) -> Rule:
        if mistakes := [text for wrong, text in self._contradictions() if wrong]:
            raise ValueError("; ".join(mistakes))
        return self

    def _contradictions(self) -> list[tuple[bool, str]]:
        answers, blocks = self.direction != "input", self.action is Action.BLOCK
        return [
            (not (self.phrases or self.patterns), "needs phrases or patterns"),
            (self.check is not None and self.check not in CHECKS, f"check must be one of {', '.join(CHECKS)}"),
            (self.check is not None and bool(self.phrases), "a check confirms patterns only"),
            (self.action is Action.ERROR, "action must be allow, mask or block"),
            (self.action is Action.MASK and self.is_attack, "an attack is blocked, not masked"),
            (answers and self.max_length is None, "a rule for answers needs max_length"),
            (answers and bool(self.phrases or self.unless), "a rule for answers has neither phrases nor unless"),
            (answers and self.only_decoded, "answers are not decoded"),
            (blocks and self.severity < RiskLevel.HIGH, "a rule that blocks is high or critical"),
            (blocks and answers and self.severity < RiskLevel.CRITICAL, "a rule that stops answers is critical"),
        ]
