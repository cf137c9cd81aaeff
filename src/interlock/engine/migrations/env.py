"""Runs the revisions on the connection that `engine.db` hands over; there is no offline mode."""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=None,
    transaction_per_migration=False,
    version_table="schema_version",
)
with context.begin_transaction():
    context.run_migrations()
