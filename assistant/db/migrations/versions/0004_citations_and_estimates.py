"""citations unsupported spans estimates"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Added in place, never by copying the table.
    json = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
    for name in ("marks", "lines", "spans", "trace"):
        op.add_column("suggestions", sa.Column(name, json, nullable=False, server_default="[]"))
    op.add_column("suggestions", sa.Column("intent", sa.String(length=80), nullable=False, server_default=""))
    op.add_column("suggestions", sa.Column("estimate", sa.Double(), nullable=True))
    op.create_index("ix_suggestions_decided", "suggestions", ["decided_at"])


def downgrade() -> None:
    op.drop_index("ix_suggestions_decided", table_name="suggestions")
    for name in ("marks", "lines", "spans", "trace", "intent", "estimate"):
        op.drop_column("suggestions", name)
