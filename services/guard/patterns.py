"""The pattern layer: rules over folded text, in under a millisecond."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property

from services.guard.checksums import CHECKS
from services.guard.encodings import ENCODINGS
from services.guard.gating import Gate, windows
from services.guard.matching import BlockMatcher, Compile, Expression, Matches
from services.guard.phrases import Locator, Words, fold_pattern, parts
from services.guard.readings import READINGS, ReadView
from services.guard.rules import Category, Rule
from services.guard.unwrapping import Sighting, View, unwrap
from services.guard.verdict import Action, DataClass, Direction, Finding, RiskLevel

LAYER = "patterns"
MOST_LAYERS = 4
MOST_FINDINGS = 100
"""Of one rule in one text; a text with more is judged no differently."""
WINDOW = 640
WINDOW_OVERLAP = 256
"""Folded bytes. A phrase that is longer, for all the separators in it, may go unseen."""
EXCUSE_REACH = 80
NESTED = "injection.encoding.nested"

Span = tuple[int, int]
Match = tuple["LoadedRule", int, int]


class LoadedRule:
    """A rule made ready to match."""

    def __init__(self, rule: Rule, words: Words, unless: Sequence[str] = (), layer: str = LAYER) -> None:
        """`unless` adds to the rule's own excuses; findings name the layer.

        Raises:
            PhraseInvalid: If a phrase or pattern cannot be read.
        """
        self.rule = rule
        self.layer = layer
        self.expressions = [
            Expression(fold_pattern(each), case_sensitive=rule.case_sensitive) for each in rule.patterns
        ]
        self.phrases = [Phrase(self, each, words) for each in rule.phrases]
        self._excuse_phrases = (*rule.unless, *unless)
        self._words = words
        self._check = CHECKS[rule.check] if rule.check else None

    @cached_property
    def excuses(self) -> Locator | None:
        """What finds the innocent phrases.

        Raises:
            PhraseInvalid: If one of them cannot be read.
        """
        return Locator(self._excuse_phrases, self._words) if self._excuse_phrases else None

    def confirmed(self, folded: bytes, start: int, end: int) -> Span | None:
        """The genuine part of what a pattern or phrase matched, if there is one."""
        if self._check is not None:
            part = self._check(folded[start:end])
            if part is None:
                return None
            start, end = start + part[0], start + part[1]
        return None if self._excused(folded, start, end) else (start, end)

    def _excused(self, folded: bytes, start: int, end: int) -> bool:
        if self.excuses is None:
            return False
        first = max(0, start - EXCUSE_REACH)
        near = self.excuses.find(folded[first : end + EXCUSE_REACH].lower())
        return any(first + excuse[0] <= end and first + excuse[1] >= start for excuse in near)

    def finding(self, start: int, end: int) -> Finding:
        """A match of the rule, placed in the original text."""
        rule = self.rule
        judged = rule.id, rule.category, rule.severity, rule.action, rule.data_class
        return Finding(*judged, start, end, self.layer, final=rule.final)


class Phrase:
    """One phrase of a rule; its expression is compiled when it is first looked for."""

    def __init__(self, loaded: LoadedRule, source: str, words: Words) -> None:
        self.loaded = loaded
        self.parts = parts(source, words)
        self._source = source
        self._words = words

    @cached_property
    def locator(self) -> Locator:
        """What finds it."""
        return Locator([self._source], self._words)


class PatternScanner:
    """Looks for everything the rules of one direction describe."""

    def __init__(
        self, rules: Sequence[LoadedRule], direction: Direction, compiled: Compile, layer: str = LAYER
    ) -> None:
        self.layer = layer
        applying = [loaded for loaded in rules if loaded.rule.applies_to(direction)]
        self._rules = [loaded for loaded in applying for _ in loaded.expressions]
        self._phrases = [phrase for loaded in applying for phrase in loaded.phrases]
        triggers = [Expression(encoding.trigger, once=not encoding.located) for encoding in ENCODINGS]
        triggers += [Expression(reading.trigger, once=True) for reading in READINGS]
        expressions = [expression for loaded in applying for expression in loaded.expressions]
        self._matcher = BlockMatcher([*expressions, *triggers], compiled)
        self._gate = Gate([phrase.parts for phrase in self._phrases], compiled) if self._phrases else None

    def scan(self, text: str, *, attacks: bool = True) -> list[Finding]:
        """Everything found in the text, as written and decoded; without `attacks`, only what concerns its data."""
        findings = _Findings()
        view = View(text)
        for layers_left in reversed(range(MOST_LAYERS + 1)):
            matches = self._matcher.scan(view.folded)
            self._note(view, matches, findings)
            findings.add_all(view, self._phrased(view))
            if attacks:
                self._note_readings(view, matches, findings)
            sightings = self._sightings(matches) if layers_left else []
            unwrapped = unwrap(view, sightings) if sightings else None
            if unwrapped is None:
                break
            view = unwrapped
        if not view.is_original and view.depth(0, len(view.folded)) >= MOST_LAYERS:
            findings.found[NESTED, 0] = _nested(text)
        return [each for each in findings.found.values() if attacks or each.category != Category.PROMPT_INJECTION]

    def readable(self, text: str) -> list[View]:
        """The text with all that is encoded in it decoded, then its other readings, where it seems to have some."""
        view, readings = View(text), list[View]()
        for _ in range(MOST_LAYERS):
            matches = self._matcher.scan(view.folded)
            readings += self._read_otherwise(view, matches)
            unwrapped = unwrap(view, sightings) if (sightings := self._sightings(matches)) else None
            if unwrapped is None:
                break
            view = unwrapped
        return [view, *readings]

    def _read_otherwise(self, view: View, matches: Matches) -> Iterator[View]:
        first = len(self._rules) + len(ENCODINGS)
        for number in sorted({event.expression for event in matches.events if event.expression >= first}):
            yield ReadView(view, READINGS[number - first])

    def _note(self, view: View, matches: Matches, findings: _Findings) -> None:
        """Add what Hyperscan found. Of matches that begin together the longest is tried first."""
        events = sorted(matches.events, key=lambda event: (event.start, -event.end))
        rules = self._rules
        findings.add_all(view, ((rules[number], start, end) for number, start, end in events if number < len(rules)))
        for number in matches.overflowed:
            if number < len(rules):
                findings.assume(view, rules[number])

    def _note_readings(self, view: View, matches: Matches, findings: _Findings) -> None:
        """Add what the text says when read backwards or by another alphabet, where it seems to be written so."""
        for reading in self._read_otherwise(view, matches):
            self._note(reading, self._matcher.scan(reading.folded), findings)
            findings.add_all(reading, self._phrased(reading))

    def _sightings(self, matches: Matches) -> list[Sighting]:
        """The encodings to undo; of one that is nearly everywhere all places are searched."""
        first = len(self._rules)
        everywhere = [Sighting(number - first, None) for number in matches.overflowed if number >= first]
        last = first + len(ENCODINGS)
        placed = [event for event in matches.events if first <= event.expression < last]
        return everywhere + [
            Sighting(number - first, (start, end) if ENCODINGS[number - first].located else None)
            for number, start, end in placed
            if number not in matches.overflowed
        ]

    def _phrased(self, view: View) -> Iterator[Match]:
        if self._gate is None:
            return
        for place, window in windows(view.lowered, WINDOW, WINDOW_OVERLAP):
            for phrase in map(self._phrases.__getitem__, self._gate.open_for(window)):
                if phrase.loaded.rule.only_decoded and view.is_original:
                    continue
                for start, end in phrase.locator.find(window):
                    yield phrase.loaded, place + start, place + end


class _Findings:
    """What was found so far: of matches of one rule that begin together, the longest."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, int], Finding] = {}
        self._counts: Counter[str] = Counter()
        self._latest: dict[str, Finding] = {}

    def add_all(self, view: View, matches: Iterable[Match]) -> None:
        """Add the matches that are genuine."""
        for loaded, start, end in matches:
            if self._counts[loaded.rule.id] < MOST_FINDINGS:
                self._add(view, loaded, start, end)

    def assume(self, view: View, loaded: LoadedRule) -> None:
        """Count a rule as met that has more matches than were checked, unless a checked one was genuine."""
        if not self._counts[loaded.rule.id]:
            finding = loaded.finding(*view.original(0, len(view.folded)))
            self.found[finding.rule, finding.start] = finding

    def _add(self, view: View, loaded: LoadedRule, start: int, end: int) -> None:
        rule = loaded.rule
        if self._covers(rule.id, *view.original(start, end)):
            return
        confirmed = loaded.confirmed(view.folded, start, end)
        if confirmed is None or (rule.only_decoded and not view.is_decoded(*confirmed)):
            return
        finding = loaded.finding(*view.original(*confirmed))
        if not finding.final and view.is_decoded(*confirmed):
            # A model that reads the text as it stands cannot say what the disguise hides.
            finding = replace(finding, final=True)
        self._counts[rule.id] += (rule.id, finding.start) not in self.found  # other views show the same again
        self.found[rule.id, finding.start] = self._latest[rule.id] = finding

    def _covers(self, rule_id: str, start: int, end: int) -> bool:
        latest = self._latest.get(rule_id)
        return latest is not None and latest.start <= start and end <= latest.end


def _nested(text: str) -> Finding:
    """Encodings deeper than anyone looks hide something."""
    return Finding(NESTED, Category.PROMPT_INJECTION, RiskLevel.HIGH, Action.BLOCK, DataClass.PUBLIC, 0, len(text))
