"""the look at outgoing mail before it is sent"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_NAMES = ("screening", "spam_label", "spam_score")


def upgrade() -> None:
    # The release before knows none of them: what it queues is looked at by this one.
    op.add_column("messages", sa.Column("screening", sa.String(length=20), nullable=False, server_default=""))
    op.add_column("messages", sa.Column("spam_label", sa.String(length=10), nullable=False, server_default=""))
    op.add_column("messages", sa.Column("spam_score", sa.Double(), nullable=True))


def downgrade() -> None:
    for name in _NAMES:
        op.drop_column("messages", name)
