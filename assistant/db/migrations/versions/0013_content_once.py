"""equal bytes are one message of a profile"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

# A mail that was read once and broke its parser the next time was stored twice: the first one keeps the name of its content.
_LATER = (
    "SELECT id FROM (SELECT id, row_number() OVER (PARTITION BY profile_id, content_hash ORDER BY created_at, id) AS place "
    "FROM messages WHERE content_hash != '') AS placed WHERE place > 1"
)


def upgrade() -> None:
    op.execute(f"UPDATE messages SET content_hash = '' WHERE id IN ({_LATER})")  # noqa: S608  # no input
    hashed = sa.text("content_hash != ''")
    op.create_index(
        "uq_messages_content",
        "messages",
        ["profile_id", "content_hash"],
        unique=True,
        sqlite_where=hashed,
        postgresql_where=hashed,
    )


def downgrade() -> None:
    op.drop_index("uq_messages_content", table_name="messages")
