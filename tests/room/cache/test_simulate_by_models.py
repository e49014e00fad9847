"""`llmmesh-cache simulate` with the models of an inference service."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from services.cache.command import main
from tests.support.scripted_embeddings import ScriptedEmbeddings

ASKED, AGAIN = "How do I paint a fence?", "What is the way to paint a fence?"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log of two questions that ask the same."""
    path = tmp_path / "log.csv"
    path.write_text(f"question\n{ASKED}\n{AGAIN}\n")
    return path


async def simulate(log: Path, target: str) -> None:
    await asyncio.to_thread(main, ["simulate", str(log), "--target", target, "--thresholds", "0.9"])


async def test_a_rewording_would_be_a_semantic_hit(
    log: Path, inference_target: str, embeddings: ScriptedEmbeddings, capsys: pytest.CaptureFixture[str]
) -> None:
    embeddings.alike(ASKED, AGAIN)
    await simulate(log, inference_target)
    _, _, below_the_head = capsys.readouterr().out.partition("most vetoes\n")
    threshold, requests, exact, semantic, *_ = below_the_head.split()
    assert (threshold, requests, exact, semantic) == ("0.90", "2", "0", "1")
    assert (AGAIN, ASKED) in embeddings.read


async def test_scores_that_cannot_be_weighed_are_named(
    log: Path, inference_target: str, embeddings: ScriptedEmbeddings
) -> None:
    embeddings.alike(ASKED, AGAIN)
    ours, embeddings.scorer = embeddings.scorer, "another"
    try:
        with pytest.raises(SystemExit, match="another cross-encoder"):
            await simulate(log, inference_target)
    finally:
        embeddings.scorer = ours


async def test_an_inference_service_that_is_away_is_named(
    log: Path, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.cache.command.CONNECT_SECONDS", 0.2)
    with pytest.raises(SystemExit, match=f"127.0.0.1:{free_port} cannot be reached"):
        await simulate(log, f"127.0.0.1:{free_port}")
