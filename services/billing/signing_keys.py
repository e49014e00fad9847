"""`python -m services.billing.signing_keys FILE stage|promote|retire|list`: a new signing key without a closed door.

`stage` adds a key that is published at once and signs nothing yet; `promote` lets it sign, once every edge has fetched
it; `retire` drops one that signs no longer, and with it every token it has signed. Services read the file again by
themselves.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from joserfc.jwk import OKPKey

from services.billing.key_file import signing_keys_from, write_signing_keys

SETTLING_SECONDS = 120.0
"""Twice as long as an edge keeps the key set."""


def stage(path: Path) -> str:
    """Add a key behind the others; returns its id."""
    new = OKPKey.generate_key("Ed25519")
    new.ensure_kid()
    write_signing_keys(path, [*signing_keys_from(path), new])
    return str(new.kid)


def promote(path: Path, *, at_once: bool = False) -> str:
    """Let the newest key sign; returns its id.

    Raises:
        ValueError: If there is one key alone, or an edge may not know the new one yet.
    """
    keys = signing_keys_from(path)
    if len(keys) < 2:
        raise ValueError("there is no key to promote: stage one")
    age = time.time() - path.stat().st_mtime
    if age < SETTLING_SECONDS and not at_once:
        raise ValueError(f"edges may not know the new key yet: wait {SETTLING_SECONDS - age:.0f} seconds")
    write_signing_keys(path, [keys[-1], *keys[:-1]])
    return str(keys[-1].kid)


def retire(path: Path, kid: str) -> None:
    """Drop a key.

    Raises:
        ValueError: If there is no such key, or it is the one that signs.
    """
    keys = signing_keys_from(path)
    if kid not in {key.kid for key in keys[1:]}:
        raise ValueError(f"{kid!r} is not one of the keys that sign no longer")
    write_signing_keys(path, [key for key in keys if key.kid != kid])


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line says, then list the keys."""
    parser = argparse.ArgumentParser(prog="python -m services.billing.signing_keys", description=__doc__)
    parser.add_argument("file", type=Path, help="what LLMMESH_BILLING_SIGNING_KEY_FILE names")
    steps = parser.add_subparsers(dest="step", required=True)
    steps.add_parser("list", help="say which keys there are")
    steps.add_parser("stage", help="add a key that is published and signs nothing yet")
    promoting = steps.add_parser("promote", help="let the newest key sign")
    promoting.add_argument("--at-once", action="store_true", help="also where edges may not know the key yet")
    # The id of a key may begin with a dash, which is no option then.
    retiring = steps.add_parser("retire", help="drop a key that signs no longer", prefix_chars="/", add_help=False)
    retiring.add_argument("kid", help="id of the key, as `list` prints it")
    asked = parser.parse_args(arguments)
    try:
        if asked.step == "stage":
            stage(asked.file)
        elif asked.step == "promote":
            promote(asked.file, at_once=asked.at_once)
        elif asked.step == "retire":
            retire(asked.file, asked.kid)
        keys = signing_keys_from(asked.file)
    except (ValueError, OSError) as error:
        sys.exit(f"signing_keys: {error}")
    for number, key in enumerate(keys):
        print(key.kid, "accepted" if number else "signs")


if __name__ == "__main__":
    main()
