"""`python -m services.billing.bootstrap`: a tenant with a developer key and an admin key, printed as JSON.

Needs the database alone: the service need not run. A second run changes nothing and prints the same keys when they are
kept in a file; without one it makes new keys and revokes the old ones.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson

from meshkit.errors import MeshError, ResourceExists
from services.billing.database.engine import Database
from services.billing.database.keys import KeyStore
from services.billing.database.tenants import TenantStore
from services.billing.fields import check_currency, check_id, check_micros
from services.billing.migrations.upgrade import upgrade
from services.billing.tenants.keyring import Keyring
from services.billing.tenants.tenant import NewTenant
from services.billing.tenants.tokens import SigningKey

KEYS = {"developer": ("developer",), "admin": ("admin",)}
LEAST_LIFETIME = timedelta(days=1)
"""A kept key that ends sooner is replaced."""


class Bootstrap:
    """Makes what is missing for a first request."""

    def __init__(self, database: Database, signing_key: SigningKey) -> None:
        self._signing_key = signing_key
        self._tenants = TenantStore(database)
        self._keys = KeyStore(database)
        self._keyring = Keyring(signing_key, write=self._keys.create, replace=self._keys.replace)

    async def run(self, tenant: NewTenant, kept: Mapping[str, str]) -> dict[str, str]:
        """Make the tenant, and each key that is not kept or no longer good; an existing tenant stays as it is."""
        with suppress(ResourceExists):
            await self._tenants.create(tenant)
        tokens = {}
        for name, roles in KEYS.items():
            token = kept.get(name, "")
            tokens[name] = token if await self._good(token, tenant.id, roles) else await self._new(tenant.id, name)
        return tokens

    async def _good(self, token: str, tenant_id: str, roles: tuple[str, ...]) -> bool:
        key_id = self._signing_key.key_id_of(token)
        key = await self._keys.get(key_id) if key_id else None
        if key is None or key.revoke_time:
            return False
        lasting = key.expire_time > datetime.now(UTC) + LEAST_LIFETIME
        return lasting and (key.tenant_id, key.roles) == (tenant_id, roles)

    async def _new(self, tenant_id: str, name: str) -> str:
        display_name = f"{name} key of the first start"
        await self._keys.revoke_named(tenant_id, display_name)
        _, token = await self._keyring.create(tenant_id, display_name=display_name, roles=KEYS[name], expire_time=None)
        return token


async def bootstrap(
    database_url: str, signing_key_file: Path, tenant: NewTenant, tokens_file: Path | None
) -> dict[str, str]:
    """Migrate, then make what is missing; returns the tokens by name."""
    database = Database(database_url, seconds=30, connections=2)
    try:
        await upgrade(database.engine)
        database.open()
        kept = _read(tokens_file) if tokens_file else {}
        tokens = await Bootstrap(database, SigningKey.from_file(signing_key_file)).run(tenant, kept)
    finally:
        await database.close()
    if tokens_file and tokens != kept:
        _write(tokens_file, tokens)
    return tokens


def _read(path: Path) -> dict[str, str]:
    try:
        kept = orjson.loads(path.read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return {}
    return {name: str(kept.get(name, "")) for name in KEYS} if isinstance(kept, dict) else {}


def _write(path: Path, tokens: Mapping[str, str]) -> None:
    """Replace the file in one step; nobody but its owner can ever read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    draft.touch(mode=0o600)
    draft.write_bytes(orjson.dumps(tokens))
    draft.replace(path)


def _arguments() -> argparse.Namespace:
    url, key_file = "LLMMESH_BILLING_DATABASE_URL", "LLMMESH_BILLING_SIGNING_KEY_FILE"
    parser = argparse.ArgumentParser(prog="python -m services.billing.bootstrap", description=__doc__)
    parser.add_argument("--database-url", default=os.environ.get(url), help=f"default: ${url}")
    parser.add_argument("--signing-key-file", type=Path, default=os.environ.get(key_file), help=f"default: ${key_file}")
    parser.add_argument("--tenant", default="demo", help="id of the tenant (default: demo)")
    parser.add_argument("--budget", type=int, default=10**9, help="monthly budget in micro-units, if it is new")
    parser.add_argument("--currency", default="RUB", help="currency of the budget (default: RUB)")
    parser.add_argument("--tokens-file", type=Path, help="keeps the tokens, for the next run to print again")
    arguments = parser.parse_args()
    if not arguments.database_url or not arguments.signing_key_file:
        parser.error(f"give --database-url and --signing-key-file, or set {url} and {key_file}")
    return arguments


def main() -> None:
    """Read the arguments, make what is missing, print the keys."""
    arguments = _arguments()
    try:
        tenant = NewTenant(
            id=check_id("--tenant", arguments.tenant),
            display_name=arguments.tenant,
            budget_limit_micros=check_micros("--budget", arguments.budget),
            currency_code=check_currency("--currency", arguments.currency),
        )
        tokens = asyncio.run(
            bootstrap(arguments.database_url, Path(arguments.signing_key_file), tenant, arguments.tokens_file)
        )
    except (MeshError, ValueError, OSError) as error:
        sys.exit(f"bootstrap: {error}")
    print(orjson.dumps({"tenant": arguments.tenant, **tokens}).decode())


if __name__ == "__main__":
    main()
