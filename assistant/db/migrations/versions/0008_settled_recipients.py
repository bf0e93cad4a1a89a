"""settled recipients"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    json = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
    op.add_column("messages", sa.Column("settled", json, nullable=False, server_default="{}"))


def downgrade() -> None:
    op.drop_column("messages", "settled")
