"""Names of people, places, products and programs."""

from __future__ import annotations

from services.cache.verification.reading import Reading, Word


def names_differ(left: Reading, right: Reading) -> bool:
    """Whether one names what the other does not."""
    return not (_all_known(left, right) and _all_known(right, left))


def _all_known(mine: Reading, yours: Reading) -> bool:
    return all(_is_known(word, yours) for word in mine.words if word.is_name)


def _is_known(name: Word, reading: Reading) -> bool:
    if any(name.resembles(word, reading.lexicon) for word in reading.words):
        return True
    return name.text in _initials(reading)


def _initials(reading: Reading) -> frozenset[str]:
    """Every acronym that successive words could make."""
    letters = "".join(word.text[0] for word in reading.content)
    return frozenset(
        letters[start:end]
        for start in range(len(letters))
        for end in range(start + 2, min(start + 6, len(letters)) + 1)
    )
