"""What Alembic runs for every command: our tables, on the connection that `assistant.db.migrate` opened."""

from __future__ import annotations

from alembic import context

from assistant.db.migrate import render_item
from assistant.db.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    compare_type=True,
    render_item=render_item,
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
