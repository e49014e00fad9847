"""Prompts and answers of tenants who want them kept, encrypted with a key of their own, which can be destroyed."""
