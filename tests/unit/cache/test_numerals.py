"""Numbers and signs of arithmetic, however people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cache.verification.reader import Reader
from services.cache.verification.verifier import refusal


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("Налог на 100 тысяч рублей", "Налог на 100000 рублей"),
        ("A budget of 2 million", "A budget of 2000000"),
        ("План трёхдневной поездки", "План поездки на 3 дня"),
        ("Фильмы 2020-го года", "Фильмы 2020 года"),
        ("Games for a 10-year-old child", "Games for a child of ten"),
        ("Прививку делают дважды?", "Прививку делают 2 раза?"),
        ("Кредит 100 000 рублей на год", "Кредит 100000 рублей на год"),
        ("Margin at 90k revenue", "Margin at 90,000 revenue"),
        ("Two hundred and fifty kcal in kJ", "250 kcal in kJ"),
        ("How long do twenty-five people need?", "How long do 25 people need?"),
        ("A box of 60x40x30 cm", "A box of 60 by 40 by 30 cm"),
        ("Book it for 14:00", "Book it for 2 pm"),
        ("A guideline about 120 seconds", "A guideline about a hundred and twenty seconds"),
        ("The wives of Henry VIII", "The wives of Henry the eighth"),
        ("Живопись XIX века", "Живопись девятнадцатого века"),
        ("Books of 1984", "Books of nineteen eighty-four"),
        ("Война 1904–1905 годов", "Война 1905 года"),
        ("Тур на 14 дней", "Тур на две недели"),
        ("How many kcal are in 100 g?", "How many kcal are in 0.1 kg?"),
        ("Матч 1997 года", "Матч 97-го года"),
        ("A 3.3v output", "A 3.3 v output"),
        ("Book it for 2pm", "Book it for 14:00"),
        ("Book it for 2:30 pm", "Book it for 14:30"),
        ("Встреча в 8 часов вечера", "Встреча в 8 вечера"),
        ("The shop opens at 12 am", "The shop opens at 00:00"),
        ("½ cup of flour", "1/2 cup of flour"),
        ("A rule about 120 seconds", "A rule about 2 minutes"),
        ("A fee of $20.00", "A fee of $20"),
        ("Автобус №12", "Автобус № 12"),
        ("A race of 5 miles", "A race of 5 mi"),
    ],
)
def test_a_number_is_the_same_however_it_is_written(reader: Reader, left: str, right: str) -> None:
    assert refusal(reader.read(left), reader.read(right)) is None


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("Symptoms of type 1 diabetes", "Symptoms of type 2 diabetes"),
        ("An alarm at 2am", "An alarm at 2pm"),
        ("We leave at 7:15 am", "We leave at 7:15 pm"),
        ("Lunch at 12 am", "Lunch at 12 pm"),
        ("Встреча в 3 часа дня", "Встреча в 3 часа ночи"),
        ("Где остановка автобуса №12?", "Где остановка автобуса №7?"),
        ("½ cup of flour in grams", "2 cups of flour in grams"),
        ("Is 2⁷ prime?", "Is 27 prime?"),
        ("2050 dollars in euros", "50 dollars in euros"),
        ("A race of 5 km", "A race of 5 miles"),
        ("A gift for $5", "A gift for 5 euros"),
        ("Python 3.1", "Python 3.10"),
    ],
)
def test_another_number_is_refused(reader: Reader, left: str, right: str) -> None:
    assert refusal(reader.read(left), reader.read(right)) == "quantity"


@pytest.mark.parametrize(
    ("question", "values"),
    [
        ("The wives of Henry VIII", ["8"]),
        ("Живопись XIX века", ["19"]),
        ("Живопись девятнадцатого века", ["19"]),
        ("A box of 60x40x30 cm", ["60", "40", "30"]),
        ("Books of nineteen eighty-four", ["1984"]),
        ("Two hundred and fifty kcal in kJ", ["250"]),
        ("Margin at 90k revenue", ["90000"]),
        ("Кредит 100 000 рублей на год", ["100000"]),
        ("Book it for 2 pm", ["14"]),
        ("Book it for 14:00", ["14"]),
        ("Rooms 5 6 7", ["5", "6", "7"]),
        ("A VIP ticket", []),
        ("A shirt in XXL", []),
        ("План трёхдневной поездки", ["3"]),
        ("Поездка на 3 дня", ["3"]),
        ("Какой символ ¥ означает?", []),
        ("❷ тысячи рублей", ["1000"]),
    ],
)
def test_numbers_are_read(reader: Reader, question: str, values: list[str]) -> None:
    assert [quantity.value for quantity in reader.read(question).quantities] == values


@given(st.text(max_size=40) | st.text("IVXLiv VP0159.,:-+/x$¥%'№½⁷❷ый ", max_size=30))
def test_any_text_can_be_read(reader: Reader, text: str) -> None:
    assert reader.read(text).language in ("russian", "english", "other")


@pytest.mark.parametrize(
    ("question", "signs"),
    [
        ("12 x 4 = ?", ("*",)),
        ("A box of 60x40 cm", ("*",)),
        ("Wind chill at -5 degrees", ("-",)),
        ("(-5) + 3", ("-", "+")),
        ("GPT-4 or a 10-year-old", ()),
        ("orange -> vodafone", ()),
    ],
)
def test_signs_of_arithmetic_are_read(reader: Reader, question: str, signs: tuple[str, ...]) -> None:
    assert reader.read(question).operators == signs


def test_another_operation_is_refused(reader: Reader) -> None:
    assert refusal(reader.read("What is 12 x 4?"), reader.read("What is 12 + 4?")) == "sign"


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("orange -> vodafone, number stays?", "Does my number stay the same when I leave Orange for Vodafone?"),
        ("tram, trolleybus - not the same?", "Are trams and trolleybuses the same?"),
        ("72 km/h in m/s", "How many metres per second are 72 km per hour?"),
        ("Lithium battery storage half a year", "How do I store a lithium battery?"),
    ],
)
def test_signs_between_words_and_numbers_that_only_one_gives_rule_nothing_out(
    reader: Reader, left: str, right: str
) -> None:
    assert refusal(reader.read(left), reader.read(right)) is None
