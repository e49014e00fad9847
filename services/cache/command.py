"""`llmmesh-cache`: fill the cache before the first question, predict what it would answer, forget reports of hits."""

from __future__ import annotations

import argparse
import asyncio
import csv
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import grpc
import orjson

from llmmesh.cache.v1.cache_pb2_grpc import CacheServiceStub
from llmmesh.guard.v1.guard_pb2_grpc import GuardServiceStub
from llmmesh.inference.v1.inference_pb2_grpc import InferenceServiceStub
from meshkit.client import connect
from meshkit.dependency import Unavailable
from meshkit.identity import Identity, acting_as
from services.cache.config import CacheConfig
from services.cache.forget_reports import forget_reports_parser
from services.cache.likeness import Likeness, difference_by, embedded, guessed
from services.cache.scoring import Scorer
from services.cache.simulation import Asked, Difference, Prediction, Simulation
from services.cache.verification.courtesy import without_courtesy
from services.cache.verification.weighing import Weighing
from services.cache.warming import Pair, Warming

if TYPE_CHECKING:
    from llmmesh.cache.v1.cache_pb2_grpc import CacheServiceAsyncStub
    from llmmesh.guard.v1.guard_pb2_grpc import GuardServiceAsyncStub
    from llmmesh.inference.v1.inference_pb2_grpc import InferenceServiceAsyncStub

CONNECT_SECONDS = 10.0
SCORE_SECONDS = 30.0
LARGEST_FIELD = 16 * 1024 * 1024
"""Characters of a field of a CSV file."""


class InputInvalid(Exception):
    """A file cannot be read as it should; the message says where and why."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; mistakes of the caller end it with one line."""
    given = _parser().parse_args(arguments)
    try:
        given.run(given)
    except TimeoutError:
        sys.exit(f"llmmesh-cache: {given.target} cannot be reached")
    except (InputInvalid, OSError) as error:
        sys.exit(f"llmmesh-cache: {error}")
    except Unavailable as error:
        sys.exit(f"llmmesh-cache: {given.target}: {error}, or serves another cross-encoder than this version weighs")
    except grpc.aio.AioRpcError as error:
        sys.exit(f"llmmesh-cache: {given.target} answers {error.code().name}: {error.details()}")


def _import(given: argparse.Namespace) -> None:
    pairs = [_pair(row, given) for row in _rows(given.file)]
    outcomes = asyncio.run(_stored(pairs, given))
    for outcome, meaning in (
        ("both", "stored at both levels"),
        ("exact", "stored at the exact level only"),
        ("blocked", "refused by the guard"),
        ("refused", "not stored: too large, personal or confidential, or the cache was away"),
    ):
        print(f"{outcomes.get(outcome, 0):>8}  {meaning}")
    if not outcomes["both"] + outcomes["exact"]:
        sys.exit(1)


async def _stored(pairs: Sequence[Pair], given: argparse.Namespace) -> Mapping[str, int]:
    caller = Identity(tenant_id=given.tenant, key_id="import", roles=frozenset({"developer", "service"}))
    async with (
        connect(given.target, CacheServiceStub, wait_seconds=CONNECT_SECONDS) as cache,
        connect(given.target, GuardServiceStub) as guard,
    ):
        warming = Warming(
            cast("CacheServiceAsyncStub", cache), cast("GuardServiceAsyncStub", guard), ttl_seconds=given.ttl
        )
        with acting_as(caller):
            return await warming.store(pairs)


def _simulate(given: argparse.Namespace) -> None:
    log = sorted(map(_asked, _rows(given.file)), key=lambda asked: asked.seconds)  # without times in the file's order
    if not log:
        raise InputInvalid(f"{given.file} holds no questions")
    compared = (asked.question for asked in log if len(asked.question) <= given.longest_question)
    questions = list(dict.fromkeys(compared))
    if given.target:
        predictions = asyncio.run(_predictions_by_models(log, questions, given))
    else:
        likeness = guessed(questions)
        predictions = _predictions(log, likeness, difference_by(likeness), given)
    _show(predictions)
    if given.plot:
        _plot(predictions, given.plot)


def _predictions(
    log: Sequence[Asked], likeness: Likeness, difference: Difference, given: argparse.Namespace
) -> list[Prediction]:
    simulation = Simulation(
        likeness.vectors,
        difference,
        ttl_seconds=given.ttl,
        candidates=given.candidates,
        longest_question=given.longest_question,
    )
    return [simulation.predict(log, threshold) for threshold in given.thresholds]


async def _predictions_by_models(
    log: Sequence[Asked], questions: Sequence[str], given: argparse.Namespace
) -> list[Prediction]:
    """As the inference service sees the questions; the replay goes on beside the loop, which asks the cross-encoder."""
    loop = asyncio.get_running_loop()
    async with connect(given.target, InferenceServiceStub, wait_seconds=CONNECT_SECONDS) as connected:
        inference = cast("InferenceServiceAsyncStub", connected)
        scorer = Scorer(
            inference,
            model=given.embedding_model,
            scorer=Weighing.packaged().scorer,
            timeout_seconds=SCORE_SECONDS,
            kept=1,
            at_once=1,
        )

        def log_odds_of(asked: str, stored: str) -> float:
            asking = scorer.log_odds(without_courtesy(asked), [without_courtesy(stored)])
            return asyncio.run_coroutine_threadsafe(asking, loop).result()[0]

        likeness = await embedded(questions, inference, given.embedding_model)
        return await asyncio.to_thread(_predictions, log, likeness, difference_by(likeness, log_odds_of), given)


def _show(predictions: Sequence[Prediction]) -> None:
    print(f"{'threshold':>9}  {'requests':>8}  {'exact':>6}  {'semantic':>8}  {'hit rate':>8}  most vetoes")
    for each in predictions:
        worst = sorted(each.vetoes.items(), key=lambda pair: -pair[1])[:3]
        vetoes = ", ".join(f"{check} {count}" for check, count in worst)
        print(
            f"{each.threshold:>9.2f}  {each.requests:>8}  {each.exact_hits:>6}  {each.semantic_hits:>8}"
            f"  {each.hit_rate:>8.1%}  {vetoes}"
        )


def _plot(predictions: Sequence[Prediction], path: Path) -> None:
    try:
        from matplotlib.figure import Figure  # large, and for this alone
    except ImportError:
        raise InputInvalid("--plot needs matplotlib: pip install matplotlib") from None
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    thresholds = [each.threshold for each in predictions]
    axes.plot(thresholds, [each.hit_rate for each in predictions], marker="o", label="exact and verified semantic hits")
    exact = [each.exact_hits / each.requests for each in predictions]
    axes.plot(thresholds, exact, linestyle="--", label="exact hits alone")
    axes.set(xlabel="least similarity of a candidate", ylabel="hit rate", ylim=(0, 1))
    axes.legend()
    axes.grid(visible=True, alpha=0.3)
    figure.savefig(path)
    print(f"written to {path}")


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each row of a CSV file with a header, or of JSON lines, with where it stands."""
    csv.field_size_limit(LARGEST_FIELD)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, row in _csv_rows(file) if path.suffix.lower() == ".csv" else _json_lines(path, file):
                yield f"{path}:{number}", row
    except UnicodeDecodeError as error:
        raise InputInvalid(f"{path} is not UTF-8, save it as that: {error}") from error
    except csv.Error as error:
        raise InputInvalid(f"{path} is no CSV: {error}") from error


def _csv_rows(lines: Iterable[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    rows = csv.DictReader(lines)
    for row in rows:
        yield rows.reader.line_num, row  # its own number is behind after an empty line


def _json_lines(path: Path, lines: Iterable[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise InputInvalid(f"{path}:{number} is no JSON: {error}") from error
        if not isinstance(row, dict):
            raise InputInvalid(f"{path}:{number} is no JSON object")
        yield number, row


def _pair(placed: tuple[str, Mapping[str, Any]], given: argparse.Namespace) -> Pair:
    place, row = placed
    model = _name(place, row, "model") or given.model
    if not model:
        raise InputInvalid(f"{place} names no model: add `model`, or give --model")
    system = _name(place, row, "system") or given.system
    return Pair(_text(place, row, "question"), _text(place, row, "answer"), model, system)


def _asked(placed: tuple[str, Mapping[str, Any]]) -> Asked:
    place, row = placed
    context = tuple(str(row.get(name) or "") for name in ("tenant", "model", "system"))
    return Asked(_text(place, row, "question"), context, _seconds(place, row.get("time")))


def _text(place: str, row: Mapping[str, Any], name: str) -> str:
    text = row.get(name)
    if not isinstance(text, str) or not text.strip():
        raise InputInvalid(f"{place} has no {name}")
    return text.strip()


def _name(place: str, row: Mapping[str, Any], name: str) -> str:
    """What may be missing."""
    text = row.get(name) or ""
    if not isinstance(text, str):
        raise InputInvalid(f"{place}: {name} must be a text")
    return text


def _seconds(place: str, time: object) -> float:
    try:
        if isinstance(time, str) and time and not time.replace(".", "", 1).isdecimal():
            return datetime.fromisoformat(time).timestamp()
        return float(time) if isinstance(time, str | int | float) and time != "" else 0.0
    except ValueError as error:
        raise InputInvalid(f"{place}: {time!r} is neither ISO 8601 nor seconds") from error


def _thresholds(text: str) -> list[float]:
    values = sorted({float(part) for part in text.split(",")})
    if not all(0 < value <= 1 for value in values):
        raise argparse.ArgumentTypeError("thresholds lie above 0 and up to 1")
    return values


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="llmmesh-cache", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _import_parser(commands.add_parser("import", help="store question and answer pairs for a tenant"))
    _simulate_parser(commands.add_parser("simulate", help="predict the hit rate from a log of questions"))
    forget_reports_parser(commands.add_parser("forget-reports", help="begin a tenant's bound on wrong hits anew"))
    return parser


def _import_parser(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Store question and answer pairs for a tenant, each judged by the guard first. JSON lines, or CSV with a "
        "header: question, answer, and if they differ by row model and system."
    )
    parser.add_argument("file", type=Path, help="*.csv, else JSON lines")
    parser.add_argument("--tenant", required=True, help="whose answers they are")
    parser.add_argument("--model", default="", help="public model name for rows that name none")
    parser.add_argument("--system", default="", help="system prompt for rows that have none")
    parser.add_argument("--target", default="127.0.0.1:15001", help="the mesh listener (%(default)s)")
    parser.add_argument("--ttl", type=int, default=7 * 24 * 3600, help="seconds to keep them (%(default)s)")
    parser.set_defaults(run=_import)


def _simulate_parser(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Replay a log, oldest first, and print the hit rate at each threshold. JSON lines, or CSV with a header: "
        "question, and as far as known tenant, model, system, and time (ISO 8601 or Unix seconds)."
    )
    parser.add_argument("file", type=Path, help="*.csv, else JSON lines")
    parser.add_argument(
        "--target",
        default="",
        help="the mesh listener, to embed with the cache's own model; without it word vectors stand in: similarities "
        "are lower, and the verifier is as strict, by a guess of the accurate cosine",
    )
    parser.add_argument("--embedding-model", default="multilingual-e5-small", help="its name (%(default)s)")
    usual = "0.5,0.6,0.7,0.8,0.85,0.88,0.9,0.92,0.94,0.96,0.98,1"
    parser.add_argument("--thresholds", type=_thresholds, default=usual, help="to try (%(default)s)")
    parser.add_argument("--ttl", type=float, default=3600.0, help="seconds an answer is kept (%(default)s)")
    served = CacheConfig.model_fields
    parser.add_argument(
        "--candidates", type=int, default=served["candidates"].default, help="questions verified at most (%(default)s)"
    )
    longest = served["longest_question_characters"].default
    parser.add_argument("--longest-question", type=int, default=longest, help="characters (%(default)s)")
    parser.add_argument("--plot", type=Path, help="write hit rate against threshold as PNG")
    parser.set_defaults(run=_simulate)


if __name__ == "__main__":
    main()
