"""The billing room, which keeps tenants' rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmmesh.tenant.v1 import tenant_pb2
from meshkit.deadline import time_left
from services.guard.tenant_rules import KeptRules

if TYPE_CHECKING:
    from llmmesh.tenant.v1.tenant_pb2_grpc import TenantServiceAsyncStub

CALL_SECONDS = 2.0


class RuleStore:
    """Rules by tenant; what billing refuses passes as it said it."""

    def __init__(self, tenants: TenantServiceAsyncStub) -> None:
        self._tenants = tenants

    async def get(self, tenant_id: str) -> KeptRules:
        """A tenant's rules as they are now."""
        request = tenant_pb2.GetGuardRulesRequest(tenant_id=tenant_id)
        found = await self._tenants.GetGuardRules(request, timeout=time_left(CALL_SECONDS))
        return KeptRules(found.rules_json, found.version)

    async def put(self, tenant_id: str, rules: KeptRules) -> None:
        """Put rules in place of those it has."""
        request = tenant_pb2.PutGuardRulesRequest(
            tenant_id=tenant_id, rules_json=rules.rules_json, version=rules.version
        )
        await self._tenants.PutGuardRules(request, timeout=time_left(CALL_SECONDS))
