"""The version of what judges a text: of the guard's packs, and of a tenant's own rules where there are some."""

from __future__ import annotations

_OWN_RULES = "+"


def joined(packs: str, rules: str) -> str:
    """Both versions as one; `rules` is empty for a tenant without rules of its own."""
    return f"{packs}{_OWN_RULES}{rules}" if rules else packs


def parted(version: str) -> tuple[str, str]:
    """The version of the packs, and that of the tenant's own rules, empty where it has none."""
    packs, _, rules = version.partition(_OWN_RULES)
    return packs, rules
