"""The few shapes Envoy's configuration is made of."""

from __future__ import annotations

from typing import Any, TypeAlias

from deploy.envoy.topology import Address

Node: TypeAlias = dict[str, Any]
"""A piece of configuration."""

NEVER_REFUSED: Node = {
    # Not `ignore_global_conn_limit`: its connections are subtracted from the others' count when they end.
    "bypass_overload_manager": True,
}
"""Of a listener for those inside: however many clients are connected, it takes connections."""


def typed(message: str, **fields: Any) -> Node:
    """A `typed_config`; `message` is its name below `envoy.`."""
    return {"@type": f"type.googleapis.com/envoy.{message}", **fields}


def extension(name: str, message: str, **fields: Any) -> Node:
    """A named extension with its configuration."""
    return {"name": name, "typed_config": typed(message, **fields)}


def http_filter(name: str, message: str, **fields: Any) -> Node:
    """An HTTP filter; `message` is its name below the filter's own package."""
    return extension(f"envoy.filters.http.{name}", f"extensions.filters.http.{name}.v3.{message}", **fields)


def socket(address: Address) -> Node:
    """An address to bind or to connect to."""
    return {"socket_address": {"address": address.host, "port_value": address.port}}


def lua_literal(value: Any) -> str:
    """A value as Lua source; no text of it can end the literal it stands in."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"[{lua_literal(key)}] = {lua_literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "{" + ", ".join(map(lua_literal, value)) + "}"
    return '"' + "".join(f"\\{byte:03d}" for byte in str(value).encode()) + '"'


def listener(
    name: str, address: Address, connection_manager: Node, *, transport: Node | None = None, **fields: Any
) -> Node:
    """A listener with one HTTP connection manager; `transport` encrypts it."""
    manager = extension(
        "envoy.filters.network.http_connection_manager",
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        **connection_manager,
    )
    chain = {"filters": [manager], **({"transport_socket": transport} if transport else {})}
    return {"name": name, "address": socket(address), "filter_chains": [chain], **fields}
