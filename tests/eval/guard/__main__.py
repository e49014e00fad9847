"""`python -m tests.eval.guard train|evaluate`: trains the quick layers' heads, or measures what ships."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.guard import classifier, meaning, second_look
from services.guard.cascade import Cascade
from services.guard.classifier import Head
from services.guard.kept import Kept
from services.guard.layers import PACKS, attack_layers, default_layers, refusals
from services.guard.meaning import MeaningHead
from services.guard.measuring import Judge, confusions, plot, table
from services.guard.passages import Passage
from services.guard.policy import load_policy
from services.guard.remote import SLOW_LAYERS, judged
from services.guard.second_look import SecondLook
from services.guard.verdict import Action
from services.inference.e5.adapters import load_adapters
from services.inference.e5.encoder import Encoder
from tests.eval.guard.meanings import Meanings
from tests.eval.guard.reader import Reader
from tests.eval.guard.sets import Sample, load
from tests.eval.guard.thresholds import Judged, thresholds

SECONDS = 3600.0


def main() -> None:
    """Run one of the commands."""
    parser = argparse.ArgumentParser(prog="python -m tests.eval.guard", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train the classifier and the embedding layer; writes their weights")
    train.add_argument("--into", type=Path, default=classifier.WEIGHTS.parent)
    evaluate = commands.add_parser("evaluate", help="measure the layers that ship; writes tables and plots")
    evaluate.add_argument("--into", type=Path, default=Path("var/eval-guard"))
    evaluate.add_argument("--target", help="also ask the guard that runs here, with its slow layers; 127.0.0.1:15001")
    given = parser.parse_args()
    _train(given.into) if given.command == "train" else _evaluate(given.into, given.target)


def _train(folder: Path) -> None:
    """Fit on all but the held-out part; thresholds from scores of texts that the scoring heads have not seen."""
    reader = Reader()
    known = [sample for sample in load() if sample.part != "held_out"]
    unseen, meanings = _unseen(reader, known)
    alone, together = thresholds(unseen)
    reader.fitted(known)._replace(**alone._asdict()).save(folder / classifier.WEIGHTS.name)
    head = meanings.head()._replace(**together._asdict())
    head.save(folder / meaning.WEIGHTS.name)
    meanings.save_adapter()
    print(f"{folder}: {len(known)} prompts, adapter {head.adapter}; {alone}, {together}")


def _unseen(reader: Reader, known: Sequence[Sample]) -> tuple[list[Judged], Meanings]:
    words = reader.unseen(known)
    meanings = Meanings(known, words)
    unseen = [
        Judged(each.is_attack, each.language, reader.refused_by_patterns(each.text), scored.score, float(together))
        for each, scored, together in zip(known, words, meanings.unseen, strict=True)
    ]
    return unseen, meanings


def _evaluate(folder: Path, target: str | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    samples, reader = load(), Reader()
    known = [each for each in samples if each.part != "held_out"]
    unseen, _ = _unseen(reader, known)
    head, stand_in_from = MeaningHead.load(), Head.load().block_from
    judged_unseen = [_by_unseen_heads(each, head, stand_in_from) for each in unseen]
    verdicts = {sample.text: judged for sample, judged in zip(known, judged_unseen, strict=True)}
    _report(folder, "unseen", known, verdicts.__getitem__)
    held_out = [each for each in samples if each.part == "held_out"]
    pairs, shapes = ([each for each in held_out if each.situation.startswith(kind)] for kind in ("pairs", "shapes"))
    others = [each for each in held_out if each not in pairs and each not in shapes]
    layers = default_layers(Kept(None))
    together = asyncio.run(_together([each.text for each in held_out]))
    for name, cases in (("held-out", others), ("held-out pairs", pairs), ("held-out shapes", shapes)):
        _report(folder, f"{name}, without the embedding model", cases, lambda text: refusals(layers, text))
        _report(folder, name, cases, together.__getitem__)
    if target:
        running = asyncio.run(judged(target, (each.text for each in held_out)))
        _report(folder, "held-out, the running guard", held_out, running.refusals.__getitem__)
        print(*running.told(), sep="\n")
    else:
        print(SLOW_LAYERS)
    _leave_one_family_out(reader, samples)


def _by_unseen_heads(each: Judged, head: MeaningHead, stand_in_from: float) -> Mapping[str, bool]:
    """Which layer refuses a prompt at the thresholds that ship, by heads that were shown nothing of its situation."""
    acquitted = each.together < head.acquit_below and each.words < stand_in_from
    by_patterns = each.by_patterns and not acquitted
    doubted = head.doubts.first <= each.words < head.doubts.end and not by_patterns
    return {
        "patterns": by_patterns,
        classifier.LAYER: not by_patterns and each.words >= head.doubts.end,
        second_look.LAYER: doubted and each.together >= head.block_from,
    }


async def _together(texts: Sequence[str]) -> dict[str, Mapping[str, bool]]:
    """Which layer refuses each text, the embedding layer among them, as the room asks them."""
    head, kept = MeaningHead.load(), Kept(None)
    layers = attack_layers(load_policy(PACKS, kept), kept, head.doubts)
    cascade, by_words = Cascade(layers), layers[1]
    look = SecondLook(head, Embedder(head.adapter), lambda text: by_words.score(text)[0], Head.load().block_from)
    asked, refused = 0, dict[str, Mapping[str, bool]]()
    for text in texts:
        passages = [Passage(text)]
        verdict = await look.judged(passages, await cascade.judge(passages), SECONDS)
        refusing = {found.layer for found in verdict.findings if found.action is Action.BLOCK}
        refused[text] = {layer: layer in refusing for layer in (*cascade.layers, second_look.LAYER)}
        asked += second_look.LAYER in verdict.layer_seconds
    print(f"\nthe embedding layer was asked about {asked} of {len(texts)} held-out texts")
    return refused


class Embedder:
    """What the inference room does, in this process."""

    def __init__(self, adapter: str) -> None:
        self._encoder, self._adapter = Encoder(adapters=load_adapters()), adapter

    async def __call__(self, texts: Sequence[str], _seconds: float) -> list[NDArray[np.float32]]:
        """The vectors of texts."""
        return [self._encoder.encode(text, adapter=self._adapter).vector for text in texts]


def _report(folder: Path, part: str, cases: Sequence[Sample], judge: Judge) -> None:
    """Print and keep the table, keep the plot. "unseen" is by heads that were shown nothing of the same situation."""
    counts = confusions(cases, judge)
    print(f"\n## {part}: {len(cases)} prompts\n\n{table(counts)}")
    (folder / f"{part}.md").write_text(table(counts) + "\n", "utf-8")
    plot(counts, folder / f"{part}.png", f"{part}, {len(cases)} prompts, default layers")


def _leave_one_family_out(reader: Reader, samples: Sequence[Sample]) -> None:
    """What the classifier catches of a kind of attack that it was never shown, at the thresholds that ship."""
    shipped = Head.load()
    for family in sorted({sample.family for sample in samples if sample.is_attack}):
        rest = [each for each in samples if each.part != "held_out" and not (each.is_attack and each.family == family)]
        head = reader.fitted(rest)
        unseen = [each for each in samples if each.is_attack and each.family == family]
        caught = sum(reader.scored(head, each.text).score >= shipped.block_from for each in unseen)
        print(f"never shown  {family:13} classifier alone catches {caught / len(unseen):6.1%} of {len(unseen)}")


if __name__ == "__main__":
    main()
