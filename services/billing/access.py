"""Whose books a caller may see."""

from __future__ import annotations

from meshkit.errors import CredentialInvalid
from meshkit.identity import Identity, current_identity
from services.billing.fields import check_id
from services.billing.tenants.tenant import tenant_unknown

ADMIN = "admin"


def visible_tenant(tenant_id: str) -> str:
    """Pass a tenant id of a request on, if its books are the caller's to see.

    Raises:
        FieldInvalid: If it is no tenant id.
        ResourceNotFound: If it is another's: that it exists is nobody else's business.
    """
    check_id("tenant_id", tenant_id)
    only = only_tenant()
    if only is not None and only != tenant_id:
        raise tenant_unknown(tenant_id)
    return tenant_id


def only_tenant() -> str | None:
    """The one tenant whose books the caller may see; None for an admin, who sees all."""
    caller = current_identity()
    return None if ADMIN in caller.roles else caller.tenant_id


def sees_margins() -> bool:
    """Whether the caller may know what providers take of whom: whoever runs the mesh, and none of its customers."""
    return only_tenant() is None


def paying_caller() -> Identity:
    """The caller, who must be known to spend anything.

    Raises:
        CredentialInvalid: If the call carries no tenant.
    """
    caller = current_identity()
    if not caller.tenant_id:
        raise CredentialInvalid("This call carries no tenant: nobody can be billed for it.")
    return caller
