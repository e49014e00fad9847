"""TenantService: tenants, virtual keys, and policies pushed to gateways."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from datetime import UTC, datetime

from google.api import httpbody_pb2

from llmmesh.tenant.v1 import tenant_pb2
from llmmesh.tenant.v1.tenant_pb2_grpc import TenantServiceServicer
from meshkit.errors import FieldInvalid
from meshkit.identity import current_identity
from meshkit.server import Context
from services.billing import pagination
from services.billing.access import only_tenant, visible_tenant
from services.billing.database.keys import KeyStore
from services.billing.database.tenants import TenantStore
from services.billing.fields import check_currency, check_id, check_micros, check_text
from services.billing.messages import time_of
from services.billing.once import Once
from services.billing.prices import PriceBook
from services.billing.tenants.keyring import Keyring
from services.billing.tenants.messages import (
    change_message,
    deletion_messages,
    key_filter_of,
    key_message,
    policy_of,
    revocation_messages,
    roles_of,
    rotation_of,
    tags_of,
    tenant_filter_of,
    tenant_message,
)
from services.billing.tenants.policies import Policies
from services.billing.tenants.rate_limits import key_policy_of
from services.billing.tenants.tenant import GuardRules, Key, NewTenant, Policy, key_unknown, tenant_unknown
from services.billing.versions import version_of


class TenantServicer(TenantServiceServicer):
    """Decodes, asks the domain, encodes."""

    def __init__(
        self,
        *,
        tenants: TenantStore,
        keys: KeyStore,
        keyring: Keyring,
        policies: Policies,
        prices: PriceBook,
        jwks: Callable[[], bytes],
        jwks_seconds: int,
        keeps_contents: bool,
    ) -> None:
        self._tenants = tenants
        self._keys = keys
        self._keyring = keyring
        self._policies = policies
        self._prices = prices
        self._jwks = jwks
        self._jwks_seconds = jwks_seconds
        self._keeps_contents = keeps_contents

    async def CreateTenant(
        self, request: tenant_pb2.CreateTenantRequest, context: Context
    ) -> tenant_pb2.CreateTenantResponse:
        """Make a tenant with its budget."""
        tenant = await self._tenants.create(self._new_tenant(request), Once.of(request, request.request_id))
        return tenant_pb2.CreateTenantResponse(tenant=tenant_message(tenant))

    async def GetTenant(self, request: tenant_pb2.GetTenantRequest, context: Context) -> tenant_pb2.GetTenantResponse:
        """One tenant."""
        tenant = await self._tenants.get(visible_tenant(request.tenant_id))
        if tenant is None:
            raise tenant_unknown(request.tenant_id)
        return tenant_pb2.GetTenantResponse(tenant=tenant_message(tenant))

    async def ListTenants(
        self, request: tenant_pb2.ListTenantsRequest, context: Context
    ) -> tenant_pb2.ListTenantsResponse:
        """A page of tenants."""
        size = pagination.page_size(request.page_size)
        which = tenant_filter_of(request, only=only_tenant())
        listing = f"tenants/{which}"
        after = pagination.position(request.page_token, listing, str)
        found = await self._tenants.page(which, most=size + 1, after=str(after.id) if after else "")
        rows, last = pagination.split(found, size)
        return tenant_pb2.ListTenantsResponse(
            tenants=[tenant_message(tenant) for tenant in rows],
            next_page_token=pagination.token(listing, last.create_time, last.id) if last else "",
        )

    async def UpdateTenant(
        self, request: tenant_pb2.UpdateTenantRequest, context: Context
    ) -> tenant_pb2.UpdateTenantResponse:
        """Change a tenant."""
        named = request.HasField("display_name")
        tenant = await self._tenants.update(
            visible_tenant(request.tenant_id),
            display_name=check_text("display_name", request.display_name, required=False) if named else None,
            policy=self._policy(request.policy) if request.HasField("policy") else None,
            version=version_of(request.etag),
            once=Once.of(request, request.request_id),
        )
        return tenant_pb2.UpdateTenantResponse(tenant=tenant_message(tenant))

    async def DeleteTenant(
        self, request: tenant_pb2.DeleteTenantRequest, context: Context
    ) -> tenant_pb2.DeleteTenantResponse:
        """Delete a tenant."""
        tenant = await self._tenants.delete(
            visible_tenant(request.tenant_id),
            version=version_of(request.etag),
            force=request.force,
            once=Once.of(request, request.request_id),
        )
        return tenant_pb2.DeleteTenantResponse(tenant=tenant_message(tenant))

    async def UndeleteTenant(
        self, request: tenant_pb2.UndeleteTenantRequest, context: Context
    ) -> tenant_pb2.UndeleteTenantResponse:
        """Take a deletion back."""
        tenant = await self._tenants.undelete(
            visible_tenant(request.tenant_id),
            version=version_of(request.etag),
            once=Once.of(request, request.request_id),
        )
        return tenant_pb2.UndeleteTenantResponse(tenant=tenant_message(tenant))

    async def CreateKey(self, request: tenant_pb2.CreateKeyRequest, context: Context) -> tenant_pb2.CreateKeyResponse:
        """Make a key and show its token."""
        expires = time_of("expire_time", request.expire_time) if request.HasField("expire_time") else None
        key, token = await self._keyring.create(
            visible_tenant(request.tenant_id),
            display_name=check_text("display_name", request.display_name, required=False),
            roles=roles_of(request.roles),
            expire_time=expires,
            team_id=check_id("team_id", request.team_id) if request.team_id else "",
            tags=tags_of(request.tags),
            policy=key_policy_of(request.policy),
            user_id=check_text("user_id", request.user_id, required=False),
            once=Once.of(request, request.request_id),
        )
        return tenant_pb2.CreateKeyResponse(key=key_message(key), token=token)

    async def GetKey(self, request: tenant_pb2.GetKeyRequest, context: Context) -> tenant_pb2.GetKeyResponse:
        """One key."""
        return tenant_pb2.GetKeyResponse(key=key_message(await self._key(request.tenant_id, request.key_id)))

    async def UpdateKey(self, request: tenant_pb2.UpdateKeyRequest, context: Context) -> tenant_pb2.UpdateKeyResponse:
        """Change a key."""
        named = request.HasField("display_name")
        key = await self._keys.change(
            visible_tenant(request.tenant_id),
            check_text("key_id", request.key_id),
            display_name=check_text("display_name", request.display_name, required=False) if named else None,
            policy=key_policy_of(request.policy) if request.HasField("policy") else None,
            version=version_of(request.etag),
            once=Once.of(request, request.request_id),
        )
        return tenant_pb2.UpdateKeyResponse(key=key_message(key))

    async def RotateKey(self, request: tenant_pb2.RotateKeyRequest, context: Context) -> tenant_pb2.RotateKeyResponse:
        """Make a key's successor and set the time the key itself ends."""
        overlap, expires = rotation_of(request)
        old = await self._key(request.tenant_id, request.key_id)
        once = Once.of(request, request.request_id)
        version = version_of(request.etag)
        key, token, ended = await self._keyring.rotate(
            old, expire_time=expires, overlap=overlap, version=version, once=once
        )
        return tenant_pb2.RotateKeyResponse(key=key_message(key), token=token, old_key=key_message(ended))

    async def ListKeys(self, request: tenant_pb2.ListKeysRequest, context: Context) -> tenant_pb2.ListKeysResponse:
        """A page of keys."""
        tenant_id = visible_tenant(request.tenant_id)
        if await self._tenants.get(tenant_id) is None:
            raise tenant_unknown(tenant_id)
        size = pagination.page_size(request.page_size)
        which = key_filter_of(request)
        listing = f"keys/{tenant_id}/{which}"
        before = pagination.position(request.page_token, listing, str)
        rows, last = pagination.split(await self._keys.page(tenant_id, which, most=size + 1, before=before), size)
        return tenant_pb2.ListKeysResponse(
            keys=[key_message(key) for key in rows],
            next_page_token=pagination.token(listing, last.create_time, last.id) if last else "",
        )

    async def RevokeKey(self, request: tenant_pb2.RevokeKeyRequest, context: Context) -> tenant_pb2.RevokeKeyResponse:
        """Revoke a key."""
        tenant_id = visible_tenant(request.tenant_id)
        key = await self._keys.revoke(tenant_id, check_text("key_id", request.key_id), version_of(request.etag))
        return tenant_pb2.RevokeKeyResponse(key=key_message(key))

    async def GetJwks(self, request: tenant_pb2.GetJwksRequest, context: Context) -> httpbody_pb2.HttpBody:
        """The key set, which may be cached."""
        await context.send_initial_metadata((("cache-control", f"public, max-age={self._jwks_seconds}"),))
        return httpbody_pb2.HttpBody(content_type="application/jwk-set+json", data=self._jwks())

    async def LookupKey(self, request: tenant_pb2.LookupKeyRequest, context: Context) -> tenant_pb2.LookupKeyResponse:
        """The key that the caller shows, from the database itself."""
        key = await self._key(current_identity().tenant_id, request.key_id)
        return tenant_pb2.LookupKeyResponse(key=key_message(key.within_team()))

    async def WatchPolicies(
        self, request: tenant_pb2.WatchPoliciesRequest, context: Context
    ) -> AsyncIterator[tenant_pb2.WatchPoliciesResponse]:
        """Everything, then each change."""
        async with aclosing(self._policies.watch()) as changes:
            async for change in changes:
                yield change_message(change)

    async def WatchRevocations(
        self, request: tenant_pb2.WatchRevocationsRequest, context: Context
    ) -> AsyncIterator[tenant_pb2.WatchRevocationsResponse]:
        """Everything, then each revocation and deletion."""
        first = True
        async with aclosing(self._policies.watch()) as changes:
            async for change in changes:
                revocations, deletions = revocation_messages(change.keys), deletion_messages(change.tenants)
                if first or revocations or deletions:
                    yield tenant_pb2.WatchRevocationsResponse(revocations=revocations, deletions=deletions)
                first = False

    async def PutGuardRules(
        self, request: tenant_pb2.PutGuardRulesRequest, context: Context
    ) -> tenant_pb2.PutGuardRulesResponse:
        """Keep rules; every gateway hears of their version."""
        rules = GuardRules(request.rules_json, request.version)
        if not await self._tenants.put_rules(visible_tenant(request.tenant_id), rules):
            raise tenant_unknown(request.tenant_id)
        return tenant_pb2.PutGuardRulesResponse()

    async def GetGuardRules(
        self, request: tenant_pb2.GetGuardRulesRequest, context: Context
    ) -> tenant_pb2.GetGuardRulesResponse:
        """Rules as they were put."""
        rules = await self._tenants.rules(visible_tenant(request.tenant_id))
        return tenant_pb2.GetGuardRulesResponse(rules_json=rules.rules_json, version=rules.version)

    async def _key(self, tenant_id: str, key_id: str) -> Key:
        visible_tenant(tenant_id)
        key = await self._keys.get(check_text("key_id", key_id))
        if key is None or key.tenant_id != tenant_id:
            raise key_unknown(tenant_id, key_id)
        return key

    def _policy(self, message: tenant_pb2.Policy) -> Policy:
        policy = policy_of(message)
        if policy.keep_contents and not self._keeps_contents:
            raise FieldInvalid("policy.keep_contents", "needs LLMMESH_BILLING_CONTENTS_KEY to be set")
        return policy

    def _new_tenant(self, request: tenant_pb2.CreateTenantRequest) -> NewTenant:
        currency_code = check_currency("currency_code", request.currency_code or self._prices.base_currency)
        if not self._prices.knows_currency(currency_code, datetime.now(UTC)):
            raise FieldInvalid("currency_code", f"the price book has no exchange rate for {currency_code}")
        return NewTenant(
            id=check_id("tenant_id", request.tenant_id),
            display_name=check_text("display_name", request.display_name, required=False) or request.tenant_id,
            budget_limit_micros=check_micros("budget_limit_micros", request.budget_limit_micros),
            currency_code=currency_code,
            policy=self._policy(request.policy),
        )
