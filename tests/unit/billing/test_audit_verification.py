"""How a chain is compared with what was signed about it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import orjson
from joserfc.jwk import KeySet

from services.billing.audit.checkpoints import Seal
from services.billing.audit.verification import FaultKind, verified
from services.billing.key_file import signing_keys_from


class Counted(list[str]):
    """Counts how often it is gone through."""

    passes = 0

    def __iter__(self) -> Iterator[str]:
        self.passes += 1
        return super().__iter__()


def test_checkpoints_are_gone_through_as_often_however_many_an_anchor_holds(tmp_path: Path) -> None:
    seal = Seal(signing_keys_from(tmp_path / "key.json"))
    sealed = [seal.sign(tenant_id="acme", size=size, root="0", head="0", after=None) for size in range(1, 101)]
    signed = [checkpoint.jws for checkpoint in sealed]
    kept = Counted(signed[:50])
    keys = KeySet.import_key_set(orjson.loads(seal.keys()))
    report = verified("acme", [], checkpoints=kept, anchored=signed, keys=keys)
    assert report.fault
    assert (report.fault.kind, report.sealed) == (FaultKind.TRUNCATED, 100)
    assert kept.passes < 5
