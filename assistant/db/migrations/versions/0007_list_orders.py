"""list orders"""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# What a list may be narrowed by rides along, so that a rare mark is found without looking into every row.
_MARKS = "unread, needs_review, has_outbound, starred, channel, intent, assignee_id"
_WAITS = "(CASE last_direction WHEN 'inbound' THEN 0 ELSE 1 END)"
_SINCE = "(coalesce(last_inbound_at, last_message_at))"
_URGENCY = (
    "(CASE urgency WHEN 'critical' THEN 0 WHEN 'urgent' THEN 0 WHEN 'high' THEN 1 WHEN 'normal' THEN 2 "
    "WHEN 'medium' THEN 2 WHEN 'low' THEN 3 ELSE 2 END)"
)
_DOUBT = "(coalesce(certainty, 2.0))"
ORDERS = {
    "newest": "last_message_at DESC",
    "waiting": f"{_WAITS}, {_SINCE}",
    "urgent": f"{_URGENCY}, last_message_at DESC",
    "certain": f"{_DOUBT}, last_message_at DESC",
}


def upgrade() -> None:
    op.drop_index("ix_threads_state_last", table_name="threads")
    op.drop_index("ix_threads_review", table_name="threads")
    op.drop_index("ix_threads_outbound", table_name="threads")
    for name, columns in ORDERS.items():
        op.execute(f"CREATE INDEX ix_order_{name} ON threads (state, {columns}, id DESC, {_MARKS})")
    op.create_index("ix_threads_counts", "threads", ["state", "unread", "needs_review", "has_outbound"])


def downgrade() -> None:
    op.drop_index("ix_threads_counts", table_name="threads")
    for name in ORDERS:
        op.drop_index(f"ix_order_{name}", table_name="threads")
    op.create_index("ix_threads_outbound", "threads", ["has_outbound", "last_message_at", "id"])
    op.create_index("ix_threads_review", "threads", ["needs_review", "last_message_at", "id"])
    op.create_index("ix_threads_state_last", "threads", ["state", "last_message_at", "id"])
