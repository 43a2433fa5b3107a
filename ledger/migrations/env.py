"""Alembic's entry: runs migrations on the connection that ledger.database hands over."""

from alembic import context

from ledger.tables import TABLES

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=TABLES, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
