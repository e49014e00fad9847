"""Seals chains: every so often, whatever grew since gets a signed checkpoint."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import NoReturn

from meshkit.errors import DependencyUnavailable
from meshkit.log import get_logger
from services.billing.alerts.alert import Alert
from services.billing.audit.anchor import Anchor
from services.billing.audit.chain import Head, Record
from services.billing.audit.checkpoints import Checkpoint, CheckpointInvalid, Seal
from services.billing.audit.merkle import Tree
from services.billing.audit.verification import ChainBroken, Fault, FaultKind, StoredRecord, Walk
from services.billing.database.alerts import AlertStore
from services.billing.database.audit import AuditStore
from services.billing.database.checkpoints import CheckpointStore
from services.billing.metrics import CHAINS_BROKEN, CHECKPOINTS

PAGE = 500

log = get_logger()


class Notary:
    """Goes along what is new, and signs only what it has found whole."""

    def __init__(
        self,
        records: AuditStore,
        checkpoints: CheckpointStore,
        alerts: AlertStore,
        seal: Seal,
        anchors: Sequence[Anchor],
    ) -> None:
        self._records = records
        self._checkpoints = checkpoints
        self._alerts = alerts
        self._seal = seal
        self._anchors = anchors

    async def run(self, interval_seconds: float) -> NoReturn:
        """Seal at every interval until cancelled, through any outage of the database."""
        reminded = not self._anchors
        while True:
            await asyncio.sleep(interval_seconds)
            try:
                if not reminded:
                    await self._remind()
                    reminded = True
                await self.seal_grown()
            except DependencyUnavailable:
                log.warning("checkpoints_postponed")

    async def seal_grown(self) -> None:
        """Give every chain that grew a checkpoint, kept outside too; a broken one gets none, and is reported."""
        try:
            await self._seal_all()
        finally:
            for anchor in self._anchors:
                await anchor.flush()

    async def _remind(self) -> None:
        """Tell the anchors how far every chain is: what waited when another process ended is sealed in that."""
        for checkpoint in await self._checkpoints.newest():
            for anchor in self._anchors:
                anchor.add(checkpoint)

    async def _seal_all(self) -> None:
        for tenant_id in await self._checkpoints.grown():
            try:
                await self._seal_one(tenant_id)
            except ChainBroken as broken:
                CHAINS_BROKEN.inc()
                log.error("audit_chain_broken", chain=tenant_id, fault=broken.fault.detail)
                await self._alerts.add([_alert(tenant_id, broken.fault)])

    async def _seal_one(self, tenant_id: str) -> None:
        last, walk = await self._left_off(tenant_id)
        head = await self._records.head(tenant_id)
        async for record in self._new(tenant_id, walk.head.position, head.position):
            walk.step(StoredRecord(record.body.encode(), record.sha256))
        if walk.head != head:
            detail = f"the chain ends at record {walk.head.position} and was left at record {head.position}"
            raise ChainBroken(Fault(FaultKind.TRUNCATED, walk.head.position + 1, detail))
        checkpoint = self._seal.sign(
            tenant_id=tenant_id, size=head.position, root=walk.tree.root().hex(), head=head.sha256, after=last
        )
        if await self._checkpoints.add(checkpoint, walk.tree.peaks):
            CHECKPOINTS.inc()
            for anchor in self._anchors:
                anchor.add(checkpoint)

    async def _left_off(self, tenant_id: str) -> tuple[Checkpoint | None, Walk]:
        try:
            kept = await self._checkpoints.last(tenant_id)
            if kept is None:
                return None, Walk(tenant_id)
            last, peaks = kept
            walk = Walk(tenant_id, Head(last.size, last.head), Tree(last.size, peaks))
        except (CheckpointInvalid, ValueError) as wrong:
            # A ValueError: the peaks are not those of so many records.
            detail = f"the newest checkpoint was replaced: {wrong}"
            raise ChainBroken(Fault(FaultKind.CHECKPOINT, 0, detail)) from wrong
        walk.agree(last, last.size - 1)
        return last, walk

    async def _new(self, tenant_id: str, after: int, until: int) -> AsyncIterator[Record]:
        while records := await self._records.between(tenant_id, after, until, most=PAGE):
            for record in records:
                yield record
            after = records[-1].position


def _alert(tenant_id: str, fault: Fault) -> Alert:
    return Alert(
        kind="audit",
        tenant_id=tenant_id,
        severity="critical",
        title=f"critical: the audit chain of {tenant_id} is not what was written",
        text=f"{fault.kind}: {fault.detail}. It gets no checkpoint; llmmesh-audit verify says more.",
        fingerprint=f"audit/{tenant_id}",
    )
