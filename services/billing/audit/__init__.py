"""Append-only record of inference decisions; a folder of its own so that it can become a room of its own."""
