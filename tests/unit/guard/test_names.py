"""Names of people, and capitalised words that are none."""

from __future__ import annotations

import pytest

from services.guard.names import INTRODUCED, RULE, NameScanner
from services.guard.verdict import DataClass


@pytest.fixture(scope="module")
def scanner() -> NameScanner:
    return NameScanner()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Меня зовут Иван Петров, я из Казани", "Иван Петров"),
        ("Клиент Смирнова Ольга Сергеевна звонила", "Смирнова Ольга Сергеевна"),
        ("Договор с Иваном Кузнецовым подписан", "Иваном Кузнецовым"),
        ("Напиши письмо Марии Ивановне", "Марии Ивановне"),
        ("А.С. Пушкин родился в Москве", "А.С. Пушкин"),
        ("Иванов И.И. подписал", "Иванов И.И"),
        ("пришёл иван петрович домой", "иван петрович"),
        ("Звоните Гульнаре Ахметовой", "Гульнаре Ахметовой"),
        ("Ask Mary Johnson", "Mary Johnson"),
        ("Mr. James T. Kirk", "James T. Kirk"),
    ],
)
def test_a_name_is_found_in_any_form(scanner: NameScanner, text: str, name: str) -> None:
    assert [text[found.start : found.end].rstrip(".") for found in scanner.scan(text)] == [name]


@pytest.mark.parametrize(
    "people",
    [
        ["John Smith", "Mary Jones", "Robert Brown", "James Wilson"],
        ["Иван Петров", "Мария Сидорова", "Пётр Иванов"],
        ["Петров Иван Сергеевич", "Сидорова Мария Ивановна", "Иванов Пётр Петрович"],
    ],
    ids=["english", "russian", "patronymics"],
)
def test_everybody_on_a_list_is_found(scanner: NameScanner, people: list[str]) -> None:
    text = "\n".join(people)
    assert [text[found.start : found.end] for found in scanner.scan(text)] == people


def test_of_names_one_after_another_all_are_found(scanner: NameScanner) -> None:
    text = "John Smith Mary Jones"
    assert [text[found.start : found.end] for found in scanner.scan(text)] == ["John Smith", "Mary Jones"]


def test_names_apart_on_one_line_are_two(scanner: NameScanner) -> None:
    text = "Иван Иванов Заместитель Директора Департамента Анна Петрова"
    assert [text[found.start : found.end] for found in scanner.scan(text)] == ["Иван Иванов", "Анна Петрова"]
    assert not list(scanner.scan("Роза Лаванда Тюльпан Пион Ромашка Магнолия Апельсин"))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("She had written to Mary\nJohnson about it", "Mary\nJohnson"),
        ("Договор с Иваном\nКузнецовым подписан", "Иваном\nКузнецовым"),
    ],
)
def test_a_name_broken_over_two_lines_of_prose_is_found(scanner: NameScanner, text: str, name: str) -> None:
    assert [text[found.start : found.end] for found in scanner.scan(text)] == [name]


@pytest.mark.parametrize(
    "text",
    [
        "Российская Федерация и Банк России",
        "Северный Ледовитый океан",
        "Нижний Новгород, Красная Площадь",
        "юридическое лицо «Ромашка», голосование акционеров",
        "New York City, Microsoft Windows Server",
        "The Great Gatsby",
        "Объясни Закон Ома",
        "",
    ],
)
def test_other_capitalised_words_are_no_names(scanner: NameScanner, text: str) -> None:
    assert not list(scanner.scan(text))


@pytest.mark.parametrize(
    ("text", "rule", "data_class"),
    [
        ("Кто такой Лев Толстой?", RULE, DataClass.INTERNAL),
        ("Клиент: Иван Петров", INTRODUCED, DataClass.SENSITIVE),
        ("My name is John Smith", INTRODUCED, DataClass.SENSITIVE),
    ],
)
def test_an_introduced_name_is_personal(scanner: NameScanner, text: str, rule: str, data_class: DataClass) -> None:
    assert [(found.rule, found.data_class) for found in scanner.scan(text)] == [(rule, data_class)]
