"""Trains and measures the classifier: `make train-guard`, `make eval-guard`."""
