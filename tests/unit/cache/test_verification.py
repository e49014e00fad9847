from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cache.verification.verifier import Verifier
from services.cache.verification.vocabulary import word_set
from tests.unit.cache.question_pairs import load, rates


@pytest.fixture(scope="module")
def verifier() -> Verifier:
    return Verifier()


WORDS = sorted(
    word_set(
        "how what many long is are not cat dog bite from to in Paris 5 ten km $ % + ? . who does than and "
        "как что сколько ли не кот собака кусает из в с Москва пять км ₽ кто времени во"
    )
)
DIFFERENT = {
    "quantity": [
        ("Convert 10 miles to kilometers", "Convert 10 miles to meters"),
        ("What is 12 + 30?", "What is 12 - 30?"),
        ("Rooms for twenty five guests", "Rooms for twenty six guests"),
        ("Is 1,000 prime?", "Is 100 prime?"),
        ("Билет за 5 тысяч", "Билет за 5 рублей"),
    ],
    "negation": [
        ("Why do we sleep?", "Why do we not sleep?"),
        ("Почему мы спим?", "Почему мы не спим?"),
        ("Can I fly with a cat?", "Can I fly without a cat?"),
    ],
    "relation": [
        ("What to eat before a race?", "What to eat after a race?"),
        ("Best phone under 500 dollars", "Best phone over 500 dollars"),
        ("Что делать перед операцией?", "Что делать после операции?"),
    ],
    "opposite": [
        ("When does school start?", "When does school end?"),
        ("Is it possible to win?", "Is it impossible to win?"),
        ("How do I turn on Bluetooth?", "How do I turn off Bluetooth?"),
        ("Как отправить письмо?", "Как получить письмо?"),
        ("Это законный договор?", "Это незаконный договор?"),
    ],
    "name": [
        ("Is it raining in Paris?", "Is it raining in Lyon?"),
        ("What is GPT-4?", "What is GPT-5?"),
        ("Кто президент Чили?", "Кто президент Перу?"),
        ("Что такое Redis?", "Что такое Kafka?"),
    ],
    "asking": [
        ("Where was Newton born?", "When was Newton born?"),
        ("What is BMI?", "How do I calculate BMI?"),
        ("Who likes Mary?", "Who does Mary like?"),
        ("Кто любит Машу?", "Кого любит Маша?"),
        ("Как часто поливать кактус?", "Зачем поливать кактус?"),
    ],
    "modality": [("Можно ли пить кофе?", "Нужно ли пить кофе?"), ("Can I pay now?", "Must I pay now?")],
    "time": [("Who is the president?", "Who was the president?"), ("Кто чемпион?", "Кто был чемпионом?")],
    "person": [("What is my name?", "What is your name?"), ("Is he older than her?", "Is she older than him?")],
    "role": [
        ("How many grams are in a pound?", "How many pounds are in a gram?"),
        ("Сколько граммов в фунте?", "Сколько фунтов в грамме?"),
        ("Trains from Rome to Milan", "Trains from Milan to Rome"),
        ("Does fear cause anger?", "Does anger cause fear?"),
        ("Как доехать от вокзала до аэропорта?", "Как доехать от аэропорта до вокзала?"),
        ("Вызывает ли страх злость?", "Вызывает ли злость страх?"),
        ("Курс доллара к юаню", "Курс юаня к доллару"),
    ],
    "wording": [
        ("Recipe for apple pie", "Recipe for plum pie"),
        ("What is the best laptop?", "What is the best gaming laptop?"),
        ("Напиши тост на свадьбу", "Напиши тост на юбилей"),
        ("¿Cuál es la capital del país?", "¿Cuál es la moneda del país?"),
    ],
    "language": [("How tall is Everest?", "Какова высота Эвереста?")],
}


@pytest.mark.parametrize(
    ("check", "left", "right"), [(check, *pair) for check, pairs in DIFFERENT.items() for pair in pairs]
)
def test_questions_that_differ_are_told_apart(verifier: Verifier, check: str, left: str, right: str) -> None:
    assert verifier.difference(left, right) == check
    assert verifier.difference(right, left) == check


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("what's the weather in Paris", "What is the weather in Paris?"),
        ("Which is bigger, the Sun or the Moon?", "Which is bigger, the Moon or the Sun?"),
        ("Five tips for sleep", "5 tips for sleep"),
        ("How do I install Redis?", "Installing Redis: how?"),
        ("Как испечь хлеб", "как печь хлеб?"),
        ("Ещё раз: чей это ёж?", "Еще раз, чей это еж"),
        ("如何重置密码?", "如何重置密码"),
        ("", "?"),
    ],
)
def test_questions_that_ask_the_same_pass(verifier: Verifier, left: str, right: str) -> None:
    assert verifier.difference(left, right) is None
    assert verifier.difference(right, left) is None


def test_every_question_asks_the_same_as_itself(verifier: Verifier) -> None:
    texts = {text for pair in load() for text in (pair.a, pair.b)}
    assert [text for text in texts if verifier.difference(text, text)] == []


@given(st.text(), st.text())
def test_any_text_at_all_can_be_compared(verifier: Verifier, left: str, right: str) -> None:
    assert verifier.difference(left, left) is None
    assert (verifier.difference(left, right) is None) == (verifier.difference(right, left) is None)


@given(st.lists(st.sampled_from(WORDS), max_size=12), st.lists(st.sampled_from(WORDS), max_size=12))
def test_words_in_any_order_can_be_compared(verifier: Verifier, left: list[str], right: list[str]) -> None:
    one, other = " ".join(left), " ".join(right)
    assert (verifier.difference(one, other) is None) == (verifier.difference(other, one) is None)


def test_the_order_of_the_two_questions_does_not_matter(verifier: Verifier) -> None:
    pairs = load()
    one_way = [verifier.difference(pair.a, pair.b) is None for pair in pairs]
    assert one_way == [verifier.difference(pair.b, pair.a) is None for pair in pairs]


@pytest.mark.parametrize("lang", ["en", "ru"])
def test_on_pairs_its_rules_were_not_written_for_it_hits_often_and_almost_never_wrongly(
    verifier: Verifier, lang: str
) -> None:
    pairs = [pair for pair in load() if pair.part == "report" and pair.lang == lang]
    right = rates((pair for pair in pairs if pair.same), verifier)
    wrong = rates((pair for pair in pairs if not pair.same), verifier)
    assert right.verified / right.pairs >= 0.6
    assert wrong.verified / wrong.pairs <= 0.03


async def test_the_first_veto_waits_for_the_dictionaries() -> None:
    fresh = Verifier()
    assert await fresh.veto("Кто чемпион?", "Кто был чемпионом?") == "time"
    assert await fresh.veto("Кто чемпион?", "Кто чемпион") is None
