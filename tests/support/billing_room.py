"""A running billing room and callers of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import psycopg
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from llmmesh.audit.v1.audit_pb2_grpc import AuditServiceStub
from llmmesh.audit.v1.compliance_pb2_grpc import ComplianceServiceStub
from llmmesh.audit.v1.contents_pb2_grpc import ContentsServiceStub
from llmmesh.billing.v1 import billing_pb2
from llmmesh.billing.v1.billing_pb2_grpc import BillingServiceStub
from llmmesh.billing.v1.budgets_pb2_grpc import BudgetServiceStub
from llmmesh.billing.v1.prices_pb2_grpc import PriceBookServiceStub
from llmmesh.billing.v1.reports_pb2_grpc import ReportServiceStub
from llmmesh.chat.v1 import chat_pb2
from llmmesh.tenant.v1 import tenant_pb2
from llmmesh.tenant.v1.teams_pb2_grpc import TeamServiceStub
from llmmesh.tenant.v1.tenant_pb2_grpc import TenantServiceStub
from meshkit.client import connect
from meshkit.errors import error_info
from meshkit.identity import Identity, acting_as
from services.billing.app import billing
from services.billing.config import BillingConfig

if TYPE_CHECKING:
    from llmmesh.audit.v1.audit_pb2_grpc import AuditServiceAsyncStub
    from llmmesh.audit.v1.compliance_pb2_grpc import ComplianceServiceAsyncStub
    from llmmesh.audit.v1.contents_pb2_grpc import ContentsServiceAsyncStub
    from llmmesh.billing.v1.billing_pb2_grpc import BillingServiceAsyncStub
    from llmmesh.billing.v1.budgets_pb2_grpc import BudgetServiceAsyncStub
    from llmmesh.billing.v1.prices_pb2_grpc import PriceBookServiceAsyncStub
    from llmmesh.billing.v1.reports_pb2_grpc import ReportServiceAsyncStub
    from llmmesh.tenant.v1.teams_pb2_grpc import TeamServiceAsyncStub
    from llmmesh.tenant.v1.tenant_pb2_grpc import TenantServiceAsyncStub

PRICES = """
exchange_rates:
  - {currency: USD, rate: "80", effective: 2026-01-01}
prices:
  - {deployment: local/small, currency: RUB, input: "100", cached_input: "10", output: "200", effective: 2026-01-01}
  - {deployment: cloud/large, currency: USD, input: "10", output: "30", effective: 2026-01-01}
"""
RUBLE = 1_000_000
TOKENS_PER_RUBLE = 10_000
"""Input tokens that cost a ruble at local/small."""
ADMIN = Identity("operations", "key-admin", frozenset({"admin"}), "req-admin")
HEALTH_SECONDS = 20.0


@dataclass
class Room:
    """A running billing room."""

    port: int
    config: BillingConfig
    billing: BillingServiceAsyncStub
    tenants: TenantServiceAsyncStub
    audit: AuditServiceAsyncStub
    compliance: ComplianceServiceAsyncStub
    budgets: BudgetServiceAsyncStub
    reports: ReportServiceAsyncStub
    contents: ContentsServiceAsyncStub
    teams: TeamServiceAsyncStub
    prices: PriceBookServiceAsyncStub

    async def tenant(self, name: str, *, rubles: float = 1000, **fields: Any) -> Identity:
        """Make a tenant; returns a developer of it."""
        request = tenant_pb2.CreateTenantRequest(tenant_id=name, budget_limit_micros=round(rubles * RUBLE), **fields)
        with acting_as(ADMIN):
            await self.tenants.CreateTenant(request)
        return Identity(name, "key-1", frozenset({"developer"}), "req")

    async def reserve(
        self,
        caller: Identity,
        request_id: str,
        *,
        deployments: tuple[str, ...] = ("local/small",),
        input_tokens: int = TOKENS_PER_RUBLE,
        max_output_tokens: int = 0,
    ) -> billing_pb2.Reservation:
        """Reserve; a ruble unless told otherwise."""
        request = billing_pb2.CreateReservationRequest(
            request_id=request_id,
            model="small",
            deployments=deployments,
            input_tokens=input_tokens,
            max_output_tokens=max_output_tokens,
        )
        with acting_as(caller):
            return (await self.billing.CreateReservation(request)).reservation

    async def commit(
        self,
        caller: Identity,
        reservation: billing_pb2.Reservation,
        deployment: str = "local/small",
        part: str = "",
        **usage: Any,
    ) -> billing_pb2.CommitReservationResponse:
        """Settle; a ruble's worth of tokens unless told otherwise."""
        request = billing_pb2.CommitReservationRequest(
            reservation_id=reservation.id,
            deployment=deployment,
            provider=deployment.partition("/")[0],
            usage=chat_pb2.TokenUsage(**(usage or {"input_tokens": TOKENS_PER_RUBLE})),
            finish_reason=chat_pb2.FINISH_REASON_STOP,
            part=part,
        )
        with acting_as(caller):
            return await self.billing.CommitReservation(request)

    async def cancel(self, caller: Identity, reservation: billing_pb2.Reservation) -> None:
        """Let a reservation go."""
        with acting_as(caller):
            await self.billing.CancelReservation(billing_pb2.CancelReservationRequest(reservation_id=reservation.id))

    async def budget(self, caller: Identity) -> billing_pb2.Budget:
        """The budget of the caller's tenant."""
        with acting_as(ADMIN):
            return (await self.billing.GetBudget(billing_pb2.GetBudgetRequest(tenant_id=caller.tenant_id))).budget

    async def usage(self, caller: Identity) -> list[billing_pb2.UsageRecord]:
        """The newest ledger rows of the caller's tenant."""
        request = billing_pb2.ListUsageRecordsRequest(tenant_id=caller.tenant_id)
        with acting_as(ADMIN):
            return list((await self.billing.ListUsageRecords(request)).records)

    def database(self) -> psycopg.Connection[Any]:
        """A connection of one's own to the room's database."""
        url = self.config.database_url.get_secret_value().replace("postgresql+psycopg", "postgresql")
        return psycopg.connect(url, autocommit=True)

    async def becomes(self, serving: bool) -> None:
        """Return when the room's health says so."""
        wanted = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.port}") as channel, asyncio.timeout(HEALTH_SECONDS):
            stub: Any = health_pb2_grpc.HealthStub(channel)
            async for answer in stub.Watch(health_pb2.HealthCheckRequest()):
                if answer.status == wanted:
                    return


@asynccontextmanager
async def billing_room(config: BillingConfig, *, until_ready: bool = True) -> AsyncIterator[Room]:
    """Run billing and connect to it; waits until it serves unless told not to."""
    async with billing(config) as port, billing_stubs(port, config) as room:
        if until_ready:
            await room.becomes(serving=True)
        yield room


@asynccontextmanager
async def billing_stubs(port: int, config: BillingConfig, *, wait_seconds: float = 5) -> AsyncIterator[Room]:
    """Connect to a room that runs already."""
    target = f"127.0.0.1:{port}"
    async with (
        connect(target, BillingServiceStub, wait_seconds=wait_seconds) as billing_stub,
        connect(target, TenantServiceStub, wait_seconds=wait_seconds) as tenant_stub,
        connect(target, AuditServiceStub, wait_seconds=wait_seconds) as audit_stub,
        connect(target, ComplianceServiceStub, wait_seconds=wait_seconds) as compliance_stub,
        connect(target, BudgetServiceStub, wait_seconds=wait_seconds) as budget_stub,
        connect(target, ReportServiceStub, wait_seconds=wait_seconds) as report_stub,
        connect(target, ContentsServiceStub, wait_seconds=wait_seconds) as contents_stub,
        connect(target, TeamServiceStub, wait_seconds=wait_seconds) as team_stub,
        connect(target, PriceBookServiceStub, wait_seconds=wait_seconds) as price_stub,
    ):
        stubs: list[Any] = [
            *(billing_stub, tenant_stub, audit_stub, compliance_stub, budget_stub, report_stub, contents_stub),
            *(team_stub, price_stub),
        ]
        yield Room(port, config, *stubs)


async def refusal(call: Awaitable[object]) -> tuple[str, str | None]:
    """Why a call is refused, and the field that is named."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    info = error_info(caught.value)
    assert info
    return info.reason, info.metadata.get("field")
