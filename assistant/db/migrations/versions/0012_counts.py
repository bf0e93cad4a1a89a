"""counts by channel, counts of what happened lately"""

from __future__ import annotations

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_MARKS = ["state", "unread", "needs_review", "has_outbound"]


def upgrade() -> None:
    op.drop_index("ix_threads_counts", table_name="threads")
    op.create_index("ix_threads_counts", "threads", [*_MARKS, "channel"])
    op.create_index("ix_thread_events_kind", "thread_events", ["kind", "created_at"])


def downgrade() -> None:
    op.drop_index("ix_thread_events_kind", table_name="thread_events")
    op.drop_index("ix_threads_counts", table_name="threads")
    op.create_index("ix_threads_counts", "threads", _MARKS)
