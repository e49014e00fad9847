"""Whose entries go when there are too many."""

from __future__ import annotations

from collections.abc import Iterator, Mapping


def surplus(counts: Mapping[str, int], *, excess: int, share: int) -> Iterator[tuple[str, int]]:
    """How many entries of which tenants go, so that there are `excess` fewer.

    Tenants with more than their share lose what is above it first, the largest before the others. The rest is of
    whoever has the cheapest: it comes last, with no tenant's name.
    """
    for tenant_id, count in sorted(counts.items(), key=lambda tenant: -tenant[1]):
        above = min(count - share, excess)
        if above > 0:
            yield tenant_id, above
            excess -= above
    if excess > 0:
        yield "", excess
