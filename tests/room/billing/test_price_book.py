"""The price book as a file and back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

DATED = """
exchange_rates:
  - {currency: USD, rate: "80.5", effective: 2026-01-01}
  - {currency: USD, rate: "90", effective: 2026-06-01}
prices:
  - {deployment: a, currency: USD, input: "3", cached_input: "0.3", cache_write: "3.75", output: "15", reasoning: "16",
     image: "0.01", request: "0.002", effective: 2026-01-01}
  - {deployment: b, currency: RUB, input: "1", output: "2", effective: 2026-01-01}
"""


def price_book(database_url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "services.billing.price_book", "--database-url", database_url, *arguments]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize("kind", ["yaml", "csv"])
def test_a_book_exported_and_imported_elsewhere_says_the_same(
    fresh_books: str, books: str, tmp_path: Path, kind: str
) -> None:
    first = tmp_path / "first.yaml"
    first.write_text(DATED)
    assert price_book(fresh_books, "import", str(first)).stdout == "4 rows added.\n"
    written = tmp_path / f"written.{kind}"
    written.write_text(price_book(fresh_books, "export", "--format", kind).stdout)
    assert "0.002" in written.read_text()
    assert price_book(fresh_books, "import", str(written)).stdout == "0 rows added.\n"
    price_book(books, "import", str(written))
    assert price_book(books, "export", "--format", kind).stdout == written.read_text()


def test_a_file_that_would_rewrite_history_adds_nothing(fresh_books: str, tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text(DATED)
    second.write_text(DATED.replace('request: "0.002"', 'request: "0.003"').replace("deployment: b", "deployment: c"))
    price_book(fresh_books, "import", str(first))
    before = price_book(fresh_books, "export").stdout
    refused = price_book(fresh_books, "import", str(second))
    assert refused.returncode == 1
    assert "history is never rewritten" in refused.stderr
    assert price_book(fresh_books, "export").stdout == before
