"""Real numbers and their look-alikes."""

from __future__ import annotations

import pytest

from services.guard.checksums import CHECKS


@pytest.mark.parametrize(
    ("check", "text", "genuine"),
    [
        ("card", b"4111 1111 1111 1111", b"4111 1111 1111 1111"),
        ("card", b"2024 4111 1111 1111 1111", b"4111 1111 1111 1111"),
        ("card", b"378282246310005", b"378282246310005"),
        ("card", b"4111 1111 1111 1112", None),
        ("card", b"9111111111111111", None),
        ("snils", b"112-233-445 95", b"112-233-445 95"),
        ("snils", rb"\n112-233-445 95", b"112-233-445 95"),
        ("snils", b"112-233-445 96", None),
        ("snils", b"000-000-000 00", None),
        ("inn", b"7707083893", b"7707083893"),
        ("inn", b"500100732259", b"500100732259"),
        ("inn", b"7707083894", None),
        ("inn", b"0000000000", None),
        ("inn", b"500100732258", None),
        ("iban", b"GB82 WEST 1234 5698 7654 32", b"GB82 WEST 1234 5698 7654 32"),
        ("iban", b"de89370400440532013000 and more", b"de89370400440532013000"),
        ("iban", b"DE89370400440532013001", None),
        ("iban", b"ZZ89370400440532013000", None),
        ("ogrn", b"1027700132195", b"1027700132195"),
        ("ogrn", b"304500116000157", b"304500116000157"),
        ("ogrn", b"1027700132196", None),
        ("ogrn", b"304500116000158", None),
        ("ogrn", b"9027700132195", None),
        ("account", b"40702817380018724467 044525225", b"40702817380018724467"),
        ("account", b"044525225, 30101810400000000225", b"30101810400000000225"),
        ("account", b"40702817380018724468 044525225", None),
        ("account", b"40702817380018724467", None),
        ("oms", b"7777 7777 7777 7771", b"7777 7777 7777 7771"),
        ("oms", b"7777777777777772", None),
        ("oms", b"0000000000000000", None),
        ("phone", b"+7 916 123-45-67", b"+7 916 123-45-67"),
        ("phone", rb"\t89161234567", b"89161234567"),
        ("phone", b"+7 000 000-00-00", None),
        ("phone", b"hello", None),
        ("credential", b"sk-9fK2mZ0qLx7Tb3VwYc5N1aRd", b"sk-9fK2mZ0qLx7Tb3VwYc5N1aRd"),
        ("credential", rb"\nsk-9fK2mZ0qLx7Tb3VwYc5N1aRd", b"sk-9fK2mZ0qLx7Tb3VwYc5N1aRd"),
        ("credential", b"sk-xxxxxxxxxxxxxxxxxxxxxxxx", None),
        ("credential", b"sk-learn-based-classifier-x", None),
        ("credential", b"AKIAIOSFODNN7EXAMPLE", None),
    ],
)
def test_only_genuine_numbers_are_confirmed(check: str, text: bytes, genuine: bytes | None) -> None:
    part = CHECKS[check](text)
    assert (text[slice(*part)] if part else None) == genuine
