"""Budgets of organisations, teams and keys."""
