"""Versions of what people change: etags (AIP-154)."""

from __future__ import annotations

from meshkit.errors import FieldInvalid, VersionConflict


def version_of(etag: str) -> int:
    """The version an etag names; 0 for any."""
    if not etag:
        return 0
    if not etag.isascii() or not etag.isdecimal() or not 0 < len(etag) < 10:
        raise FieldInvalid("etag", "is not an etag of this service: take it from the resource you read")
    return int(etag)


def changed(resource: str) -> VersionConflict:
    """The error for a resource, such as "tenants/acme", that is no longer the version that was named."""
    return VersionConflict(f"{resource!r} has changed since you read it: read it again.", resource=resource)
