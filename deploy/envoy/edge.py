"""The edge: one port for REST, SSE and native gRPC, where keys are checked and JSON becomes RPCs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deploy.envoy.catalogue import Method, services_of
from deploy.envoy.clusters import JWKS, key_cluster
from deploy.envoy.issuers import OWN_ISSUER, Issuer
from deploy.envoy.replies import openai_replies
from deploy.envoy.routes import route
from deploy.envoy.schema import Node, extension, http_filter, listener, lua_literal, typed
from deploy.envoy.telemetry import REQUEST_ID, access_log, rpc_metrics, tracing
from deploy.envoy.topology import Topology

LARGEST_BODY_BYTES = 16 * 1024 * 1024
_ENVELOPE_BYTES = 256
"""What transcoding adds around a raw body."""
_READ_ON_BYTES = 4 * 1024 * 1024
"""How far past the limit a body is read, so that its sender is still there to hear the refusal."""
UNARY_SECONDS = 600
"""Longest a unary call may take: what OpenAI's own clients wait."""

_IDENTITY = {"tenant": "x-llmmesh-tenant", "sub": "x-llmmesh-key", "roles": "x-llmmesh-roles"}
"""Claims of a key and the metadata they become."""

_NEVER_FROM_CLIENTS = [*_IDENTITY.values(), "x-llmmesh-user", "x-request-id", "x-openai-error"]


def edge_listener(topology: Topology, methods: Sequence[Method]) -> Node:
    """Where clients connect."""
    return listener(
        "edge",
        topology.edge,
        _connection_manager(topology, methods),
        # `drain_listeners?inboundonly` closes the edge alone: calls under way still need the mesh listener.
        traffic_direction="INBOUND",
        per_connection_buffer_limit_bytes=1 << 20,
    )


def _connection_manager(topology: Topology, methods: Sequence[Method]) -> Node:
    exposed = [method for method in methods if method.exposed]
    return {
        "stat_prefix": "edge",
        "codec_type": "AUTO",
        "route_config": _routes(exposed),
        "http_filters": _filters(topology, methods, exposed),
        "local_reply_config": openai_replies(),
        "access_log": access_log(topology.access_log),
        "early_header_mutation_extensions": [_clean_headers()],
        "request_id_extension": REQUEST_ID,
        "always_set_request_id_in_response": True,
        **tracing(topology),
        **_LIMITS,
    }


def _routes(exposed: Sequence[Method]) -> Node:
    """One route per exposed RPC: REST arrives here already transcoded, everything else is 404."""
    return {
        "virtual_hosts": [
            {
                "name": "edge",
                "domains": ["*"],
                "routes": [_route(method) for method in exposed],
                "response_headers_to_remove": ["grpc-accept-encoding", "x-envoy-upstream-service-time"],
            }
        ]
    }


def _route(method: Method) -> Node:
    open_to_all = {
        "typed_per_filter_config": {
            "envoy.filters.http.jwt_authn": typed("extensions.filters.http.jwt_authn.v3.PerRouteConfig", disabled=True)
        }
    }
    return route(method, 0 if method.streams else UNARY_SECONDS, **(open_to_all if method.anonymous else {}))


def _filters(topology: Topology, methods: Sequence[Method], exposed: Sequence[Method]) -> list[Node]:
    """In order. Keys are checked after transcoding, on the RPC's own path: no spelling of a URL slips past."""
    return [
        _health(),
        http_filter("lua", "Lua", default_source_code={"inline_string": _lua()}),
        _transcoder(topology, exposed),
        _keys(topology),
        *([_claims(topology.issuers)] if topology.issuers else []),
        _body_limit(),
        rpc_metrics(methods),
        http_filter("router", "Router"),
    ]


def _health() -> Node:
    """`GET /healthz`: 200 while a gateway replica is healthy and this Envoy is not draining."""
    return http_filter(
        "health_check",
        "HealthCheck",
        pass_through_mode=False,
        headers=[{"name": ":path", "string_match": {"exact": "/healthz"}}],
        cluster_min_healthy_percentages={"gateway": {"value": 1}},
    )


def _lua() -> str:
    return Path(__file__).with_name("openai_errors.lua").read_text()


def _transcoder(topology: Topology, exposed: Sequence[Method]) -> Node:
    return http_filter(
        "grpc_json_transcoder",
        "GrpcJsonTranscoder",
        proto_descriptor=topology.descriptor_set,
        services=services_of(exposed),
        convert_grpc_status=True,
        ignore_unknown_query_parameters=True,
        # Without it an unknown path goes on as it is and ends as 503.
        request_validation_options={"reject_unknown_method": True},
        max_request_body_size=LARGEST_BODY_BYTES + _READ_ON_BYTES,
        print_options={"preserve_proto_field_names": True},
        # `openai` escapes the slash of a model's name.
        url_unescape_spec="ALL_CHARACTERS",
    )


def _body_limit() -> Node:
    """Counts what arrives instead of believing `content-length`.

    A refusal before the client has sent its body is lost when the connection closes under its hands.
    """
    return http_filter("body_size_limit", "BodySizeLimit", max_request_bytes=LARGEST_BODY_BYTES + _ENVELOPE_BYTES)


def _keys(topology: Topology) -> Node:
    names = [OWN_ISSUER, *(issuer.name for issuer in topology.issuers)]
    any_of = {"requires_any": {"requirements": [{"provider_name": name} for name in names]}}
    return http_filter(
        "jwt_authn",
        "JwtAuthentication",
        providers={OWN_ISSUER: _own(topology), **{issuer.name: _foreign(issuer) for issuer in topology.issuers}},
        rules=[{"match": {"prefix": "/"}, "requires": any_of if topology.issuers else {"provider_name": OWN_ISSUER}}],
    )


def _own(topology: Topology) -> Node:
    """Virtual keys are EdDSA tokens of our own issuer; its signing keys come through this very listener."""
    return {
        **_provider(OWN_ISSUER, [OWN_ISSUER]),
        "claim_to_headers": [{"claim_name": claim, "header_name": header} for claim, header in _IDENTITY.items()],
        # No jwt_cache_config: what it remembers outlives the key that signed it.
        "remote_jwks": _key_set("http://edge/.well-known/jwks.json", JWKS, topology.jwks_seconds),
    }


def _foreign(issuer: Issuer) -> Node:
    """Tokens of another issuer: their claims are read by the rules of its file, never taken as headers."""
    return {
        **_provider(issuer.issuer, issuer.audiences),
        "payload_in_metadata": issuer.name,
        "remote_jwks": _key_set(issuer.jwks_uri, key_cluster(issuer), issuer.jwks_seconds),
    }


def _provider(issuer: str, audiences: Sequence[str]) -> Node:
    return {
        "issuer": issuer,
        "audiences": list(audiences),
        "from_headers": [{"name": "authorization", "value_prefix": "Bearer "}],
        "forward": False,
        # A token without an end is no access token.
        "require_expiration": True,
    }


def _key_set(uri: str, cluster: str, seconds: int) -> Node:
    return {
        "http_uri": {"uri": uri, "cluster": cluster, "timeout": "2s"},
        "cache_duration": f"{seconds}s",
        # The first fetch comes before this listener is open; the next one soon after.
        "async_fetch": {"fast_listener": True, "failed_refetch_duration": "0.3s"},
    }


def _claims(issuers: Sequence[Issuer]) -> Node:
    """After verification: who a token of another issuer stands for."""
    rules = {issuer.name: issuer.model_dump(include={"user_claim", "tenants", "roles"}) for issuer in issuers}
    code = f"local ISSUERS = {lua_literal(rules)}\n" + Path(__file__).with_name("claims.lua").read_text()
    return extension(
        "llmmesh.claims", "extensions.filters.http.lua.v3.Lua", default_source_code={"inline_string": code}
    )


def _clean_headers() -> Node:
    """Drop what only the mesh may say, before anything reads it."""
    exact = [{"remove": name} for name in _NEVER_FROM_CLIENTS]
    envoys_own = {"remove_on_match": {"key_matcher": {"prefix": "x-envoy-"}}}
    return extension(
        "envoy.http.early_header_mutation.header_mutation",
        "extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
        mutations=[*exact, envoys_own],
    )


_LIMITS: Node = {
    "use_remote_address": True,
    "normalize_path": True,
    "merge_slashes": True,
    "common_http_protocol_options": {"idle_timeout": "3600s", "headers_with_underscores_action": "DROP_HEADER"},
    "http2_protocol_options": {
        "max_concurrent_streams": 256,
        "initial_stream_window_size": 1 << 16,
        "initial_connection_window_size": 1 << 20,
    },
    "request_headers_timeout": "10s",
    # The whole request must have arrived by then; answers may stream for as long as they keep coming.
    "request_timeout": "60s",
    "stream_idle_timeout": f"{UNARY_SECONDS}s",
    "drain_timeout": "10s",
}
