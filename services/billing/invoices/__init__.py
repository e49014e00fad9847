"""Invoices: what a tenant owes for a period, as a message and as a PDF."""
