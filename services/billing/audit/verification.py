"""Finds the first place where a chain is not what was written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson
from joserfc.jwk import KeySet

from services.billing.audit.chain import NOTHING, Head, sha256
from services.billing.audit.checkpoints import Checkpoint, CheckpointInvalid, read_checkpoint
from services.billing.audit.merkle import Tree


class FaultKind(StrEnum):
    """What was done to the chain."""

    ALTERED = "altered"
    """A record does not hold what was written."""
    MISSING = "missing"
    """A record between others is gone."""
    REORDERED = "re-ordered"
    """A record does not stand in its place."""
    TRUNCATED = "truncated"
    """Records are gone from the end."""
    REWRITTEN = "rewritten"
    """Records agree with each other but not with what was signed."""
    CHECKPOINT = "checkpoint"
    """A checkpoint was replaced or removed."""


@dataclass(frozen=True, slots=True)
class Fault:
    """The first place where something is wrong."""

    kind: FaultKind
    position: int
    detail: str
    request_id: str = ""


class ChainBroken(Exception):
    """A chain is not what was written."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(f"{fault.kind}: {fault.detail}")
        self.fault = fault


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record as it lies somewhere, not to be trusted."""

    body: bytes
    sha256: str


@dataclass(frozen=True, slots=True)
class Report:
    """What was looked at, and the first fault."""

    tenant_id: str
    records: int
    checkpoints: int
    sealed: int
    """Records covered by the newest checkpoint."""
    fault: Fault | None


class Walk:
    """Goes along a chain from where it was left; grows its Merkle tree."""

    def __init__(self, tenant_id: str, head: Head | None = None, tree: Tree | None = None) -> None:
        self.head = head or Head()
        self.tree = tree or Tree()
        self._tenant_id = tenant_id

    def step(self, record: StoredRecord) -> None:
        """Take the next record.

        Raises:
            ChainBroken: If it is not the one that was written there.
        """
        place = self.head.position + 1
        fields = _fields(record.body)
        request_id = str(fields.get("request_id", ""))
        if sha256(record.body) != record.sha256 or fields.get("tenant_id") != self._tenant_id:
            raise ChainBroken(Fault(FaultKind.ALTERED, place, f"record {place} is not what was written", request_id))
        if fields.get("position") != place:
            raise ChainBroken(_out_of_place(place, fields))
        if fields.get("previous") != self.head.sha256:
            before = place - 1
            raise ChainBroken(
                Fault(FaultKind.ALTERED, before, f"record {before} is not the one that record {place} follows")
            )
        self.head = Head(place, record.sha256)
        self.tree.append(bytes.fromhex(record.sha256))

    def agree(self, checkpoint: Checkpoint, since: int) -> None:
        """Compare with what was signed when the chain was this long.

        Raises:
            ChainBroken: If the two differ.
        """
        if (self.tree.root().hex(), self.head.sha256) != (checkpoint.root, checkpoint.head):
            raise ChainBroken(
                Fault(
                    FaultKind.REWRITTEN,
                    since + 1,
                    f"records {since + 1} to {checkpoint.size} are not those that were signed "
                    f"at {checkpoint.create_time.isoformat(timespec='seconds')}",
                )
            )


def verified(
    tenant_id: str,
    records: Iterable[StoredRecord],
    *,
    checkpoints: Sequence[str],
    anchored: Sequence[str],
    keys: KeySet,
    head: Head | None = None,
) -> Report:
    """Go along a tenant's whole chain and compare it with everything that was signed.

    `anchored` are checkpoints that were kept elsewhere; `head` is where the database says that the chain ends.
    """
    walk = Walk(tenant_id)
    seals, fault = _seals(tenant_id, checkpoints, anchored, keys)
    try:
        _follow(walk, iter(records), seals)
        _check_end(walk.head, seals, head)
    except ChainBroken as broken:
        # What happened to a record says more than what happened to a checkpoint.
        fault = broken.fault
    return Report(tenant_id, walk.head.position, len(checkpoints), seals[-1].size if seals else 0, fault)


def _follow(walk: Walk, records: Iterator[StoredRecord], seals: Sequence[Checkpoint]) -> None:
    waiting, since = list(reversed(seals)), 0
    for record in records:
        try:
            walk.step(record)
        except ChainBroken as broken:
            raise ChainBroken(_moved_or_gone(broken.fault, records)) from broken
        while waiting and waiting[-1].size == walk.head.position:
            walk.agree(waiting.pop(), since)
            since = walk.head.position


def _check_end(found: Head, seals: Sequence[Checkpoint], head: Head | None) -> None:
    promised = max([checkpoint.size for checkpoint in seals] + ([head.position] if head else []), default=0)
    if found.position < promised:
        first = found.position + 1
        detail = f"the chain ends at record {found.position}; records {first} to {promised} are gone"
        raise ChainBroken(Fault(FaultKind.TRUNCATED, first, detail))
    if head and head != found:
        detail = f"record {found.position} is not the one that the chain was left with"
        raise ChainBroken(Fault(FaultKind.ALTERED, found.position, detail))


def _seals(
    tenant_id: str, checkpoints: Sequence[str], anchored: Sequence[str], keys: KeySet
) -> tuple[list[Checkpoint], Fault | None]:
    """Everything that was truly signed about the tenant, the smallest first, and the first thing wrong with it."""
    kept = list(_read(checkpoints, keys))
    here = set(checkpoints)
    elsewhere = [signed for signed in dict.fromkeys(anchored) if signed not in here]
    lost = list(_read(elsewhere, keys))
    faults = [*_misplaced(tenant_id, kept), *(_removed(seal) for seal in lost)]
    seals = [seal for seal in (*kept, *lost) if isinstance(seal, Checkpoint) and seal.tenant_id == tenant_id]
    return sorted(seals, key=lambda seal: seal.size), faults[0] if faults else None


def _read(signed: Iterable[str], keys: KeySet) -> Iterator[Checkpoint | CheckpointInvalid]:
    for each in signed:
        try:
            yield read_checkpoint(each, keys)
        except CheckpointInvalid as invalid:
            yield invalid


def _misplaced(tenant_id: str, kept: Iterable[Checkpoint | CheckpointInvalid]) -> Iterator[Fault]:
    """Checkpoints that are not the ones that were put there."""
    size, previous = 0, NOTHING
    for seal in kept:
        if isinstance(seal, CheckpointInvalid):
            yield Fault(
                FaultKind.CHECKPOINT, size, f"the checkpoint after the one of {size} records was replaced: {seal}"
            )
            return
        if seal.tenant_id != tenant_id or seal.size <= size or seal.previous != previous:
            detail = f"the checkpoint of {seal.size} records does not follow that of {size}: one is replaced or gone"
            yield Fault(FaultKind.CHECKPOINT, size, detail)
            return
        size, previous = seal.size, seal.sha256


def _removed(seal: Checkpoint | CheckpointInvalid) -> Fault:
    if isinstance(seal, CheckpointInvalid):
        return Fault(FaultKind.CHECKPOINT, 0, f"an anchored checkpoint was replaced: {seal}")
    detail = f"the checkpoint of {seal.size} records that was anchored is not here: it was replaced or removed"
    return Fault(FaultKind.CHECKPOINT, seal.size, detail)


def _out_of_place(place: int, fields: dict[str, Any]) -> Fault:
    detail = f"record {fields.get('position')} stands in the place of record {place}"
    return Fault(FaultKind.REORDERED, place, detail, str(fields.get("request_id", "")))


def _moved_or_gone(fault: Fault, rest: Iterator[StoredRecord]) -> Fault:
    """A record that stands nowhere further on is missing."""
    if fault.kind is not FaultKind.REORDERED:
        return fault
    if any(_fields(record.body).get("position") == fault.position for record in rest):
        return fault
    return Fault(FaultKind.MISSING, fault.position, f"record {fault.position} is missing")


def _fields(body: bytes) -> dict[str, Any]:
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return fields if isinstance(fields, dict) else {}
