"""What Alembic runs for every command: migrations go over the connection the caller opened."""

from alembic import context

from services.billing.database.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
