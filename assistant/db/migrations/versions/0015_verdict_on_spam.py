"""what triage made of a thread's probability of spam, by the thresholds and exceptions of that day"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Empty says that the release before triaged it: the list then goes by the probability alone.
    op.add_column("threads", sa.Column("spam_verdict", sa.String(length=10), nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("threads", "spam_verdict")
