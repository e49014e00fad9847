"""Makes the table, once and offline: the accurate model and word counts travel in packages (`make distill-embedder`)."""
