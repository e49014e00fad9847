"""Puts billing together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NoReturn

from llmmesh.audit.v1.audit_pb2_grpc import add_AuditServiceServicer_to_server
from llmmesh.audit.v1.compliance_pb2_grpc import add_ComplianceServiceServicer_to_server
from llmmesh.audit.v1.contents_pb2_grpc import add_ContentsServiceServicer_to_server
from llmmesh.billing.v1.billing_pb2_grpc import add_BillingServiceServicer_to_server
from llmmesh.billing.v1.budgets_pb2_grpc import add_BudgetServiceServicer_to_server
from llmmesh.billing.v1.prices_pb2_grpc import add_PriceBookServiceServicer_to_server
from llmmesh.billing.v1.reports_pb2_grpc import add_ReportServiceServicer_to_server
from llmmesh.tenant.v1.teams_pb2_grpc import add_TeamServiceServicer_to_server
from llmmesh.tenant.v1.tenant_pb2_grpc import add_TenantServiceServicer_to_server
from meshkit.background import in_background
from meshkit.errors import DependencyUnavailable
from meshkit.log import get_logger
from meshkit.server import Mount, running
from services.billing.alerts.channels import read_channels
from services.billing.alerts.dispatcher import Dispatcher
from services.billing.audit.anchor import anchors
from services.billing.audit.checkpoints import Seal
from services.billing.audit.event import Event
from services.billing.audit.notary import Notary
from services.billing.audit.servicer import AuditServicer
from services.billing.budgets.servicer import BudgetServicer
from services.billing.coalescing import Lane
from services.billing.compliance.packs import Packs
from services.billing.compliance.servicer import ComplianceServicer
from services.billing.compliance.violation import Violation
from services.billing.config import BillingConfig
from services.billing.contents.envelope import MasterKey
from services.billing.contents.servicer import ContentsServicer
from services.billing.contents.vault import Vault
from services.billing.corrections import Corrections
from services.billing.database.alerts import AlertStore
from services.billing.database.audit import AuditStore
from services.billing.database.budgets import BudgetStore, BudgetUpkeep
from services.billing.database.checkpoints import CheckpointStore
from services.billing.database.contents import ContentStore
from services.billing.database.corrections import CorrectionStore
from services.billing.database.engine import Database
from services.billing.database.keys import KeyStore
from services.billing.database.ledger import LedgerStore
from services.billing.database.prices import PriceStore
from services.billing.database.reservations import ReservationStore
from services.billing.database.rollups import Rollup, RollupStore, check_cluster
from services.billing.database.settlements import SettlementStore
from services.billing.database.teams import TeamStore
from services.billing.database.tenants import TenantStore
from services.billing.database.violations import ViolationStore
from services.billing.database.wire import Wire
from services.billing.following import Following
from services.billing.invoices.invoice import Invoices
from services.billing.invoices.printer import Printer
from services.billing.key_file import signing_keys_from
from services.billing.lease import Lease
from services.billing.ledger import CacheHits
from services.billing.migrations.upgrade import upgrade
from services.billing.price_list import read_price_list
from services.billing.prices import PriceBook
from services.billing.pricing.servicer import PriceBookServicer
from services.billing.reports.report import Reports
from services.billing.reports.servicer import ReportServicer
from services.billing.reservations import Held, Hold, Reservations, Settled, Settlement
from services.billing.servicer import BillingServicer
from services.billing.teams.servicer import TeamServicer
from services.billing.tenants.keyring import Keyring
from services.billing.tenants.policies import Policies
from services.billing.tenants.servicer import TenantServicer
from services.billing.tenants.tokens import SigningKey
from services.billing.upkeep import Upkeep

RETRY_SECONDS = 0.25
ROLLUP_SECONDS = 600.0
"""Longest that summing up may take; only a first time takes more than a moment."""
BATCH_ITEMS = 64
WAITING_ITEMS = 2048

log = get_logger()


@asynccontextmanager
async def billing(config: BillingConfig) -> AsyncIterator[int]:
    """Run billing; yields the port it listens on. Until the database is there, calls are refused as unavailable."""
    room = _Room(config)
    try:
        serving = running(room.mounts(), config, room="billing", ready=room.ready, revoked=room.policies.revoked)
        async with in_background(*room.work()), serving as port:
            try:
                yield port
            finally:
                # Watchers would otherwise hold the drain up until its end.
                room.policies.lose()
    finally:
        await room.close()


class _Room:
    """Everything that lives as long as the process."""

    def __init__(self, config: BillingConfig) -> None:
        self._config = config
        self._signing_key = SigningKey.from_file(config.signing_key_file)
        self.database = Database(
            config.database_url.get_secret_value(),
            seconds=config.database_seconds,
            connections=config.database_connections,
            statement_seconds=config.database_statement_seconds,
            lock_seconds=config.database_lock_seconds,
        )
        self.policies = Policies()
        self._book = PriceBook(config.base_currency)
        self._prices = PriceStore(self.database)
        self._budgets = BudgetStore(self.database)
        self._tenants = TenantStore(self.database)
        self._keys = KeyStore(self.database)
        self._wires = [Wire(self.database, seconds=config.database_seconds) for _ in range(4)]
        hold_wire, release_wire, settle_wire, upkeep_wire = self._wires
        settlements = SettlementStore(settle_wire)
        self._reservations = ReservationStore(
            hold_wire, release_wire, upkeep_wire, lease_seconds=config.reservation_seconds
        )
        self._wires.append(rollup_wire := Wire(self.database, seconds=ROLLUP_SECONDS))
        self._upkeep = Upkeep(
            config,
            self.database,
            reservations=self._reservations,
            budgets=BudgetUpkeep(upkeep_wire),
            rollup=Rollup(rollup_wire),
        )
        self._holds: Lane[Hold, Held] = self._lane("hold", self._reservations.hold)
        self._releases: Lane[Lease, None] = self._lane("release", self._reservations.release)
        self._settlements: Lane[Settlement, Settled] = self._lane("settle", settlements.settle)
        self._packs = Packs.read()
        self._alerts = AlertStore(self.database)
        self._contents = ContentStore(self.database)
        self._violations = ViolationStore(self.database)
        self._audit = AuditStore(self.database, self._violations_of)
        self._checkpoints = CheckpointStore(self.database)
        self._seal = Seal(signing_keys_from(config.audit_key_file or config.signing_key_file))
        self._appends: Lane[Sequence[Event], None] = self._lane("audit", self._audit.append, batch_items=8)

    def mounts(self) -> list[Mount]:
        """The services of the room."""
        return [
            Mount(add_BillingServiceServicer_to_server, self._billing()),
            Mount(add_BudgetServiceServicer_to_server, BudgetServicer(self._budgets)),
            Mount(add_ReportServiceServicer_to_server, self._reporting()),
            Mount(add_PriceBookServiceServicer_to_server, self._pricing()),
            Mount(add_TenantServiceServicer_to_server, self._tenancy()),
            Mount(add_TeamServiceServicer_to_server, TeamServicer(TeamStore(self.database))),
            Mount(add_AuditServiceServicer_to_server, self._auditing()),
            Mount(add_ContentsServiceServicer_to_server, ContentsServicer(self._vault())),
            Mount(add_ComplianceServiceServicer_to_server, ComplianceServicer(self._violations, self._packs)),
        ]

    def work(self) -> list[Coroutine[Any, Any, Any]]:
        """What runs beside the calls."""
        lanes: list[Lane[Any, Any]] = [self._holds, self._releases, self._settlements, self._appends]
        url = self._config.audit_anchor_url
        kept = list(anchors(self._config.audit_anchor_file, url.get_secret_value() if url else None))
        notary = Notary(self._audit, self._checkpoints, self._alerts, self._seal, kept)
        sealing = notary.run(self._config.audit_checkpoint_seconds)
        channels = read_channels(self._config.alert_channels)
        alerting = Dispatcher(self._alerts, channels, self._config.alert_poll_seconds).run()
        beside = [self._upkeep.sweep(), self._upkeep.roll_up(), sealing, alerting, self._open_and_follow()]
        return [*(lane.run() for lane in lanes), *beside]

    async def close(self) -> None:
        """Close every connection."""
        for wire in self._wires:
            await wire.close()
        await self.database.close()

    async def ready(self) -> bool:
        """Whether calls can be served."""
        return self.policies.live and await self.database.answers()

    def _lane(self, name: str, work: Any, *, batch_items: int = BATCH_ITEMS) -> Lane[Any, Any]:
        return Lane(
            name, work, batch_items=batch_items, waiting_items=WAITING_ITEMS, seconds=self._config.database_seconds
        )

    def _billing(self) -> BillingServicer:
        ledger, corrections = LedgerStore(self.database), CorrectionStore(self.database)
        currency_of = self._budgets.currency_of
        return BillingServicer(
            reservations=Reservations(
                self._book,
                currency_of=currency_of,
                hold=self._holds.submit,
                settle=self._settlements.submit,
                release=self._releases.submit,
            ),
            cache_hits=CacheHits(self._book, currency_of=currency_of, record=ledger.record),
            budgets=self._budgets,
            ledger=ledger,
            corrections=Corrections(self._book, find=corrections.find, add=corrections.add),
            prices=self._book,
        )

    def _reporting(self) -> ReportServicer:
        currency_of, lines = self._budgets.currency_of, RollupStore(self.database).lines
        reports = Reports(
            self._book,
            currency_of=currency_of,
            lines=lines,
            baseline=self._config.report_baseline,
            embedder=self._config.report_embedder,
        )
        issuer = self._config.invoice_issuer
        invoices = Invoices(tenant=self._tenants.get, currency_of=currency_of, lines=lines, issuer=issuer)
        return ReportServicer(reports, invoices, Printer())

    def _pricing(self) -> PriceBookServicer:
        return PriceBookServicer(self._prices, self._book, currency_of=self._budgets.currency_of)

    def _tenancy(self) -> TenantServicer:
        return TenantServicer(
            tenants=self._tenants,
            keys=self._keys,
            keyring=Keyring(self._signing_key, write=self._keys.create, replace=self._keys.replace),
            policies=self.policies,
            prices=self._book,
            jwks=self._signing_key.jwks,
            jwks_seconds=self._config.jwks_seconds,
            keeps_contents=self._config.contents_key is not None,
        )

    def _vault(self) -> Vault:
        key = self._config.contents_key
        return Vault(self._contents, MasterKey(key.get_secret_value()) if key else None)

    def _violations_of(self, event: Event) -> Iterable[Violation]:
        return self._packs.violations(event, self.policies.of(event.tenant_id).compliance_packs)

    def _auditing(self) -> AuditServicer:
        return AuditServicer(
            append=self._appends.submit, records=self._audit, checkpoints=self._checkpoints, keys=self._seal.keys()
        )

    async def _open_and_follow(self) -> NoReturn:
        await self._open()
        await Following(
            self.database,
            tenants=self._tenants,
            keys=self._keys,
            prices=self._prices,
            policies=self.policies,
            book=self._book,
            answer_seconds=self._config.database_seconds,
        ).run()

    async def _open(self) -> None:
        """Migrate and import prices, however long the database takes to appear."""
        waiting = False
        while True:
            try:
                await upgrade(self.database.engine)
                await check_cluster(self.database.engine)
                self.database.open()
                await self._import_prices()
            except DependencyUnavailable:
                if not waiting:
                    log.warning("waiting_for_database")
                waiting = True
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

    async def _import_prices(self) -> None:
        if self._config.prices:
            added = await self._prices.add(read_price_list(self._config.prices, self._config.base_currency))
            log.info("prices_imported", rows=added)
