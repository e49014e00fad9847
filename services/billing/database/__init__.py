"""The one adapter to Postgres: every statement of the room stands in this package."""
