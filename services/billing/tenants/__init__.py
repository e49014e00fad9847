"""Tenants, their keys and their policies."""
