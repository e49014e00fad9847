"""Inference: our own chat and embedding models."""
