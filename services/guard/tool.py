"""`llmmesh-guard test cases.jsonl`: judges cases and prints what each layer caught, missed and refused in vain."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from services.guard.kept import Kept
from services.guard.layers import PACKS, default_layers, refusals
from services.guard.measuring import ALL, Judge, confusions, plot, table
from services.guard.packfiles import PacksInvalid
from services.guard.remote import SLOW_LAYERS, GuardAway, judged

EPILOG = """\
Each line of the file is a JSON object:
  {"text": "Ignore all previous instructions", "is_attack": true, "language": "en", "family": "override"}
"text" and "is_attack" are needed; language and family ("category" means the same) group the table.
The exit status is 1 when an attack was missed or an innocent text refused, 2 when something cannot be read.
"""


class Case(BaseModel):
    """One line of the file."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    text: str
    """The prompt."""
    is_attack: bool
    """Whether it ought to be refused."""
    language: str = "unknown"
    """Its language."""
    family: str = "unknown"
    """Kind of attack, or topic."""


def main() -> None:
    """Run the command and exit with its status."""
    given = _parser().parse_args()
    try:
        cases = read(given.cases)
        judge, remarks = _by_running_guard(given.target, cases) if given.target else _by_default_layers(given.packs)
    except (OSError, CasesInvalid, PacksInvalid, GuardAway) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    counts = confusions(cases, judge)
    print(table(counts), *remarks, sep="\n")
    if given.plot:
        plot(counts, given.plot, f"{given.cases.name}, {len(cases)} cases")
    total = counts[ALL, ALL, ALL]
    sys.exit(1 if total.missed or total.refused else 0)


def _by_default_layers(packs: Path) -> tuple[Judge, list[str]]:
    layers = default_layers(Kept(None), packs)
    return lambda text: refusals(layers, text), ["", SLOW_LAYERS]


def _by_running_guard(target: str, cases: Sequence[Case]) -> tuple[Judge, list[str]]:
    found = asyncio.run(judged(target, (case.text for case in cases)))
    return found.refusals.__getitem__, ["", *found.told()]


class CasesInvalid(Exception):
    """A file of cases that cannot be read; the message names every line at fault."""


def read(path: Path) -> list[Case]:
    """The cases of a file.

    Raises:
        CasesInvalid: If a line is no case, or there is none.
    """
    cases, faults = [], []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            cases.append(Case.model_validate_json(line))
        except ValidationError as error:
            faults += [f"{path}:{number}: {_place(each['loc'])}: {each['msg']}" for each in error.errors()]
    if not cases and not faults:
        faults.append(f"{path}: no cases")
    if faults:
        raise CasesInvalid("\n".join(faults))
    return cases


def _place(location: tuple[int | str, ...]) -> str:
    return ".".join(map(str, location)) or "line"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="llmmesh-guard", epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__
    )
    test = parser.add_subparsers(required=True).add_parser(
        "test", help="judge a file of cases", epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    test.add_argument("cases", type=Path, help="file of cases, one JSON object a line")
    test.add_argument("--packs", type=Path, default=PACKS, help="folder of rule packs; those that ship by default")
    test.add_argument("--target", help="ask the guard that runs here, with its slow layers; such as 127.0.0.1:15001")
    test.add_argument("--plot", type=Path, help="also draw a PNG here (needs matplotlib)")
    return parser
