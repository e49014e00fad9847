"""Envoy's configuration, rendered from the descriptor set and a list of addresses."""
