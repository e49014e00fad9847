"""A log replayed: what the cache would have answered, at each threshold."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from services.cache.command import main
from services.cache.simulation import Asked, Simulation

VECTORS = {
    "one": np.array([1.0, 0.0], dtype=np.float32),
    "uno": np.array([0.96, 0.28], dtype=np.float32),
    "two": np.array([0.8, 0.6], dtype=np.float32),
    "drei": np.array([0.6, 0.8], dtype=np.float32),
}


def simulation(**settings: float) -> Simulation:
    def difference(asked: str, stored: str) -> str | None:
        return "quantity" if "two" in (asked, stored) else None

    return Simulation(VECTORS, difference, **{"ttl_seconds": 60, "candidates": 4, "longest_question": 100, **settings})


def test_the_same_question_is_an_exact_hit_and_a_verified_one_a_semantic_hit() -> None:
    predicted = simulation().predict([Asked("one"), Asked("one"), Asked("uno"), Asked("two")], 0.7)
    assert (predicted.requests, predicted.exact_hits, predicted.semantic_hits) == (4, 1, 1)
    assert predicted.hit_rate == 0.5
    assert predicted.vetoes == {"quantity": 1}


def test_a_higher_threshold_has_fewer_candidates() -> None:
    log = [Asked("one"), Asked("uno")]
    assert [simulation().predict(log, threshold).semantic_hits for threshold in (0.9, 0.97)] == [1, 0]


def test_another_context_and_an_expired_answer_are_misses() -> None:
    log = [Asked("one", ("acme",), 0), Asked("one", ("rival",), 1), Asked("uno", ("acme",), 100)]
    predicted = simulation().predict(log, 0.5)
    assert (predicted.exact_hits, predicted.semantic_hits) == (0, 0)


def test_the_command_prints_a_table_and_writes_a_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log.jsonl"
    questions = ["How do I reset my password?", "How can I reset my password?", "How do I reset my password?"]
    log.write_text("\n".join(json.dumps({"question": question, "model": "m"}) for question in questions))
    main(["simulate", str(log), "--thresholds", "0.5,1", "--plot", str(tmp_path / "plot.png")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["threshold", "requests", "exact"]
    assert lines[1].split()[:5] == ["0.50", "3", "1", "1", "66.7%"]
    assert lines[2].split()[:4] == ["1.00", "3", "1", "0"]
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_without_a_model_the_learned_part_of_the_verifier_speaks_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log.jsonl"
    questions = ["Who repaired the tower?", "Why was the tower repaired?"]
    log.write_text("\n".join(json.dumps({"question": question}) for question in questions))
    main(["simulate", str(log), "--thresholds", "0.5"])
    row = capsys.readouterr().out.splitlines()[1]
    assert row.split()[1:4] == ["2", "0", "0"]
    assert "certainty 1" in row


@pytest.mark.parametrize("newest_first", [False, True])
def test_a_csv_log_with_times_is_read_in_their_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], newest_first: bool
) -> None:
    log = tmp_path / "log.csv"
    times = sorted(["2026-01-01T00:00:00", "2026-01-01T03:00:00", "2026-01-01T03:30:00"], reverse=newest_first)
    log.write_text("question,time\n" + "".join(f"Why?,{time}\n" for time in times))
    main(["simulate", str(log), "--thresholds", "0.9"])
    assert capsys.readouterr().out.splitlines()[1].split()[1:3] == ["3", "1"]


def test_what_checks_refuse_takes_nobodys_place() -> None:
    log = [Asked("two"), Asked("uno"), Asked("drei")]
    assert simulation(candidates=1).predict(log, 0.5).semantic_hits == 1


def test_a_question_too_long_to_compare_is_an_exact_hit_at_most(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text("\n".join(json.dumps({"question": text}) for text in ("Why? " * 300, "Why?", "Why? " * 300)))
    main(["simulate", str(log), "--thresholds", "0.5"])
    assert capsys.readouterr().out.splitlines()[1].split()[1:4] == ["3", "1", "0"]


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("log.csv", "question\nКак?\n".encode("cp1251"), "is not UTF-8"),
        ("log.csv", b"question\n" + b"a" * 17_000_000, "is no CSV"),
        ("log.jsonl", b'{"question": "a"}\nrubbish', "log.jsonl:2 is no JSON"),
        ("log.jsonl", b'{"answer": "a"}', "log.jsonl:1 has no question"),
        ("log.jsonl", b'{"question": "a"}\n\n{"answer": "a"}', "log.jsonl:3 has no question"),
        ("log.csv", b"question,time\nWhy?,soon\n", "log.csv:2: 'soon' is neither"),
        ("log.csv", b'question,time\n"Why\nnot?",1\n\nWhen?,soon\n', "log.csv:5: 'soon' is neither"),
        ("log.jsonl", b"", "holds no questions"),
    ],
)
def test_a_log_that_cannot_be_read_is_explained_in_one_line(
    tmp_path: Path, name: str, text: bytes, complaint: str
) -> None:
    (tmp_path / name).write_bytes(text)
    with pytest.raises(SystemExit) as caught:
        main(["simulate", str(tmp_path / name)])
    assert complaint in str(caught.value)


@pytest.mark.parametrize("command", [[], ["import"], ["simulate"], ["forget-reports"]])
def test_help_is_there(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*command, "--help"])
    assert caught.value.code == 0
    assert "llmmesh-cache" in capsys.readouterr().out
