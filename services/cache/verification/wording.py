"""What is left when all that two questions share is taken away."""

from __future__ import annotations

from services.cache.verification.reading import Reading, Word


def wording_differs(left: Reading, right: Reading) -> bool:
    """Whether one says something that nothing in the other stands for."""
    return bool(_unmatched(left, right)) or bool(_unmatched(right, left))


def _unmatched(mine: Reading, yours: Reading) -> list[Word]:
    """Content words of one with no kin among the words of the other."""
    said = (word for word in mine.content if not word.is_number)
    return [word for word in said if not any(word.resembles(other, mine.lexicon) for other in yours.words)]
