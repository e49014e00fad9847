"""Vectors of short Russian and English texts without a model: one table look-up a word, about 0.1 ms a text."""

from wordvectors.table import WordVectors

__all__ = ["WordVectors"]
