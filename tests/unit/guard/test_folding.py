"""Disguises of a letter fold to the letter, and every folded byte knows where it comes from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.guard.folding import fold, folded_width, is_one_to_one, origins


@pytest.mark.parametrize(
    ("disguised", "plain"),
    [
        ("ignоrе", "ignore"),
        ("ІGNORE", "IGNORE"),
        ("игнopиpуй", "игнорируй"),
        ("ｉｇｎｏｒｅ", "ignore"),
        ("𝓲𝓰𝓷𝓸𝓻𝓮", "ignore"),
        ("ɪɢɴᴏʀᴇ", "ignore"),
        ("ⓘⓖⓝⓞⓡⓔ", "ignore"),
        ("🅸🅶🅽🅾🆁🅴", "ignore"),
        ("ïgñörè", "ignore"),
        ("i\u200bg\u2060n\u00ado\u034fre", "ignore"),
        ("i\u0336g\u0336n\u0336o\u0336r\u0336e\u0336", "ignore"),
        ("\U000e0069\U000e0067\U000e006e\U000e006f\U000e0072\U000e0065", "ignore"),
        ("４１１１", "4111"),
        ("٤١١١", "4111"),
        ("a\u00a0b\u3000c", "a b c"),
        ("«ё» – й", '"е" - и'),
    ],
)
def test_a_disguise_folds_to_what_it_looks_like(disguised: str, plain: str) -> None:
    assert fold(disguised) == fold(plain)


def test_both_cases_of_a_cyrillic_letter_fold_alike() -> None:
    letters = "".join(map(chr, range(ord("а"), ord("я") + 1)))
    assert fold(letters).lower() == fold(letters.upper()).lower()


def test_different_cyrillic_words_stay_different() -> None:
    words = "мир мар мор пир рим сор сыр вес бес лес".split()  # noqa: SIM905 - words
    assert len({fold(word) for word in words}) == len(words)


def test_letters_of_other_scripts_stay_different() -> None:
    assert fold("忽略") != fold("指令")
    assert len(fold("忽略")) == 8


@given(st.text())
def test_every_text_folds_and_every_byte_has_an_origin(text: str) -> None:
    folded = fold(text)
    places = origins(text)
    assert len(places) == len(folded) + 1
    assert list(places) == sorted(places)
    assert places[-1] == len(text)
    assert sum(map(folded_width, text)) == len(folded)
    assert not is_one_to_one(text) or len(folded) == len(text)


@given(st.text(), st.text())
def test_folding_does_not_depend_on_where_a_text_is_cut(left: str, right: str) -> None:
    assert fold(left) + fold(right) == fold(left + right)
