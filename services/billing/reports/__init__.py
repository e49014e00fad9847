"""Reports: what was spent, where, and what it would have cost elsewhere."""
