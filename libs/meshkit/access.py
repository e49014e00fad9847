"""Who may call which RPC: the rule stands in the proto beside the RPC."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from google.protobuf import descriptor_pool

from llmmesh.access.v1 import access_pb2
from meshkit.errors import CredentialInvalid, RoleMissing
from meshkit.identity import Identity


@cache
def allowed_roles(method: str) -> frozenset[str] | None:
    """Roles the RPC `/package.Service/Method` asks for; None when it asks for none.

    RPCs without a rule are reachable only inside the mesh (the edge does not route them), so they ask for none.
    """
    try:
        descriptor = descriptor_pool.Default().FindMethodByName(method.strip("/").replace("/", "."))
    except KeyError:
        return None
    options = descriptor.GetOptions()
    if not options.HasExtension(access_pb2.rule):
        return None
    rule = options.Extensions[access_pb2.rule]
    return None if rule.anonymous else frozenset(role_name(role) for role in rule.roles)


def role_name(role: access_pb2.Role.ValueType) -> str:
    """The word of the `roles` claim for a role, such as "admin"."""
    return access_pb2.Role.Name(role).removeprefix("ROLE_").lower()


def admit(method: str, identity: Identity, revoked: Callable[[str], bool]) -> None:
    """Let the caller pass or raise.

    Raises:
        CredentialInvalid: If the RPC needs a key and the call carries none, or one that is revoked.
        RoleMissing: If the key holds none of the roles.
    """
    roles = allowed_roles(method)
    if roles is None:
        return
    if revoked(identity.key_id):
        raise CredentialInvalid("This API key is revoked: ask for a new one.")
    if roles & identity.roles:
        return
    if not identity.key_id:
        raise CredentialInvalid("This call needs an API key: send it as a bearer token.")
    wanted = " or ".join(sorted(roles))
    raise RoleMissing(
        f"This key may not do that: it needs the role {wanted}.", method=method, roles=" ".join(sorted(roles))
    )
