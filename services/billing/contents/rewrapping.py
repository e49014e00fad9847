"""`python -m services.billing.contents.rewrapping`: every tenant's key wrapped by the newest master key.

The master keys come from LLMMESH_BILLING_CONTENTS_KEY, the newest first. No content is decrypted, and none is written
anew. It may run beside billing, and again after an interruption; the status is 1 when a key fits none of them.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import psycopg

from services.billing.contents.envelope import ContentsUnreadable, MasterKey

URL, KEY = "LLMMESH_BILLING_DATABASE_URL", "LLMMESH_BILLING_CONTENTS_KEY"
CONNECT_SECONDS = 10
_KEYS = "SELECT id, tenant_id, wrapped FROM content_keys ORDER BY id"
_REPLACE = "UPDATE content_keys SET wrapped = %s WHERE id = %s AND wrapped = %s"
"""A key that was destroyed meanwhile stays destroyed."""


@dataclass(slots=True)
class Outcome:
    """What became of the keys."""

    rewrapped: int = 0
    already: int = 0
    unreadable: int = 0

    def __str__(self) -> str:
        return (
            f"{self.rewrapped} keys wrapped anew, {self.already} were so already, {self.unreadable} fit no master key"
        )


def rewrap(connection: psycopg.Connection, master: MasterKey) -> Outcome:
    """Wrap every tenant's key by the newest master key; each is on disk before the next."""
    outcome = Outcome()
    for key_id, tenant_id, wrapped in connection.execute(_KEYS).fetchall():
        try:
            anew = master.rewrapped(bytes(wrapped), tenant_id)
        except ContentsUnreadable:
            outcome.unreadable += 1
            print(f"rewrapping: the key of {tenant_id} fits none of the master keys", file=sys.stderr)
            continue
        if anew is None:
            outcome.already += 1
        else:
            outcome.rewrapped += connection.execute(_REPLACE, (anew, key_id, wrapped)).rowcount
    return outcome


def main(given: Sequence[str] | None = None) -> None:
    """Read the arguments, wrap, say what was done."""
    parser = argparse.ArgumentParser(prog="python -m services.billing.contents.rewrapping", description=__doc__)
    parser.add_argument("--database-url", default=os.environ.get(URL), help=f"default: ${URL}")
    arguments = parser.parse_args(given)
    if not arguments.database_url:
        parser.error(f"give --database-url or set {URL}")
    try:
        master = MasterKey(os.environ.get(KEY, ""))
        url = arguments.database_url.replace("postgresql+psycopg:", "postgresql:", 1)
        with psycopg.connect(url, autocommit=True, connect_timeout=CONNECT_SECONDS) as connection:
            outcome = rewrap(connection, master)
    except ValueError as error:
        sys.exit(f"rewrapping: {KEY} {error}")
    except psycopg.Error as error:
        sys.exit(f"rewrapping: {error}")
    print(outcome)
    sys.exit(1 if outcome.unreadable else 0)


if __name__ == "__main__":
    main()
