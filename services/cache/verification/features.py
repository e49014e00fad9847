"""What a pair of questions shows: every check's finding, what is left unmatched, and how similar they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations

from services.cache.verification.asking import asks_differ
from services.cache.verification.clauses import SELF, actors_differ, quotes_meet
from services.cache.verification.names import names_differ
from services.cache.verification.polarity import (
    degrees_differ,
    modality_differs,
    negations_differ,
    opposites_meet,
    persons_differ,
    relations,
    times_differ,
)
from services.cache.verification.quantities import numbers_contradict, quantities_differ
from services.cache.verification.reading import Reading
from services.cache.verification.roles import roles_swapped
from services.cache.verification.vocabulary import word_set
from services.cache.verification.wording import Features, Wording
from wordvectors import WordVectors

KINDS = tuple(
    sorted(word_set("what when where who why how how_many how_long how_often how_far yes_or_no whom list whence"))
)
AIMS = tuple(
    sorted(
        word_set(
            "why when how cost how_many how_long how_often how_far where whence who yes_or_no may must worth task "
            "difference begin end"
        )
    )
)
ANSWERS = {
    "reason": word_set("why"),
    "time": word_set("when how_long how_often"),
    "amount": word_set("how_many how_long how_often how_far cost"),
    "money": word_set("cost"),
    "place": word_set("where whence"),
    "person": word_set("who"),
    "manner": word_set("how"),
    "whether": word_set("yes_or_no"),
    "difference": word_set("difference"),
}
TENSES = ("past", "present", "future")
ACTING = word_set("i we they he she я мы они он она")
ACTED_UPON = word_set("me us them him her мне меня нас нам им их ему ей")
CHECKS: Mapping[str, Callable[[Reading, Reading], bool]] = {
    "negation": negations_differ,
    "opposite": opposites_meet,
    "name": names_differ,
    "asking": asks_differ,
    "modality": modality_differs,
    "time": times_differ,
    "person": persons_differ,
    "degree": degrees_differ,
    "role": roles_swapped,
}


class PairReader:
    """Measures pairs; the same whichever question comes first."""

    def __init__(self, table: WordVectors) -> None:
        self._wording = Wording(table)

    def features(self, left: Reading, right: Reading, *, similarity: float, outline: float) -> Features:
        """All features by name; `similarity` is the accurate cosine, `outline` that of the sketches."""
        return {
            "similarity": similarity,
            "outline": outline,
            "russian": float("russian" in (left.language, right.language)),
            **{name: float(differs(left, right)) for name, differs in CHECKS.items()},
            **self._wording.features(left, right),
            **_quantities(left, right),
            **_relations(left, right),
            **_asking(left, right),
            **_roles(left, right),
            **_shape(left, right),
            **_aims(left, right),
            **_clauses(left, right),
        }


def _quantities(left: Reading, right: Reading) -> Features:
    mine, yours = (sorted(q.value for q in reading.quantities if q.value != "1") for reading in (left, right))
    units = left.units != right.units
    return {
        "numbers": float(mine != yours),
        "numbers_both": float(mine != yours and bool(mine) and bool(yours)),
        "numbers_contradict": float(numbers_contradict(left, right)),
        "counted": float(
            mine == yours and len(left.quantities) == len(right.quantities) and quantities_differ(left, right)
        ),
        "units": float(units),
        "units_both": float(units and bool(left.units) and bool(right.units)),
        "operators": float(left.operators != right.operators),
    }


def _relations(left: Reading, right: Reading) -> Features:
    mine, yours = relations(left), relations(right)
    return {
        "relation": float(mine != yours),
        "relation_both": float(mine != yours and bool(mine) and bool(yours)),
        "denials": abs(len(left.denied) - len(right.denied)),
        "past": float(left.past != right.past),
    }


def _aims(left: Reading, right: Reading) -> Features:
    mine, yours = left.aims, right.aims
    return {
        "aims_alike": len(mine & yours) / max(1, len(mine | yours)),
        "aims_apart": float(_apart(mine, yours)),
        "aims_one": len(mine ^ yours),
        "answers_apart": float(_apart(_answers(mine), _answers(yours))),
        "answers_open": float(not _answers(mine)) + float(not _answers(yours)),
        "answers_alike": float(bool(_answers(mine)) and _answers(mine) == _answers(yours)),
        **{f"aim_{aim}": float((aim in mine) != (aim in yours)) for aim in AIMS},
        **{f"aim_{aim}_both": float(aim in mine and aim in yours) for aim in AIMS},
        "quoted": float(bool(left.quoted) and bool(right.quoted)) * (1 if quotes_meet(left, right) else -1),
    }


def _answers(aims: frozenset[str]) -> frozenset[str]:
    """Kinds of answers that aims are after; how long may be a time or an amount."""
    return frozenset(kind for kind, members in ANSWERS.items() if not aims.isdisjoint(members))


def _clauses(left: Reading, right: Reading) -> Features:
    mine, yours = left.clause, right.clause
    return {
        "actor": float(actors_differ(left, right)),
        "actor_self": float((mine.actor == SELF) != (yours.actor == SELF)),
        "actor_self_other": float({SELF, ""} & {mine.actor, yours.actor} == {SELF} and actors_differ(left, right)),
        "actor_same": float(bool(mine.actor) and mine.actor == yours.actor),
        "subject_became_object": len(mine.subjects & yours.objects) + len(yours.subjects & mine.objects),
        "objects_alike": len(mine.objects & yours.objects),
        **{f"tense_{tense}": float((tense in mine.tenses) != (tense in yours.tenses)) for tense in TENSES},
        "tense_apart": float(_apart(mine.tenses, yours.tenses)),
        "verb_person": float(_apart(mine.persons, yours.persons)),
        "verb_person_one": len(mine.persons ^ yours.persons),
    }


def _asking(left: Reading, right: Reading) -> Features:
    return {
        "asks_alike": float(not left.asks.isdisjoint(right.asks)),
        "asks_open": float(not left.asks or not right.asks),
        **{f"asks_{kind}": float((kind in left.asks) != (kind in right.asks)) for kind in KINDS},
    }


def _roles(left: Reading, right: Reading) -> Features:
    mine, yours = ({word.lemma: word for word in reading.words if not word.is_function} for reading in (left, right))
    shared = [(mine[lemma], yours[lemma]) for lemma in mine if lemma in yours]
    order = [lemma for lemma in yours if lemma in mine]
    places = [order.index(one.lemma) for one, _ in shared]
    return {
        "roles": sum(one.role != other.role and bool(one.role) and bool(other.role) for one, other in shared),
        "roles_one": sum(one.role != other.role for one, other in shared),
        "cases": sum(bool(one.cases) and bool(other.cases) and not one.cases & other.cases for one, other in shared),
        "inversions": sum(earlier > later for earlier, later in combinations(places, 2)),
        "shared": len(shared),
        "acting": float(_texts(left, ACTING) != _texts(right, ACTING)),
        "acting_both": float(_apart(_texts(left, ACTING), _texts(right, ACTING))),
        "acted_upon": float(_texts(left, ACTED_UPON) != _texts(right, ACTED_UPON)),
        "persons": float(set(left.pronouns) != set(right.pronouns)),
    }


def _shape(left: Reading, right: Reading) -> Features:
    mine, yours = ({word.lemma for word in reading.words if word.is_function} for reading in (left, right))
    shorter, longer = sorted((len(left.words), len(right.words)))
    first, last = (bool(left.content) and bool(right.content) and _same(left, right, at) for at in (0, -1))
    return {
        "function_words": len(mine ^ yours) / max(1, len(mine | yours)),
        "lengths": shorter / max(1, longer),
        "shorter": shorter,
        "same_start": float(first),
        "same_end": float(last),
    }


def _same(left: Reading, right: Reading, at: int) -> bool:
    return left.content[at].lemma == right.content[at].lemma


def _texts(reading: Reading, wanted: frozenset[str]) -> frozenset[str]:
    return frozenset(word.text for word in reading.words) & wanted


def _apart(mine: frozenset[str], yours: frozenset[str]) -> bool:
    return bool(mine) and bool(yours) and mine.isdisjoint(yours)
