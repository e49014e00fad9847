"""Violations: what the guard found that a tenant's compliance packs count."""
