"""Makes the table, once and offline: model and word counts travel in packages (`make distill-embedder`)."""
