"""policies, saved filters"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "policies",
        sa.Column("intent", sa.String(length=80), nullable=False),
        sa.Column("needed", sa.Double(), nullable=False),
        sa.Column("agent_id", sa.String(length=36), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_by", sa.String(length=36), nullable=True),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["agent_id"], ["agents.id"], name=op.f("fk_policies_agent_id_agents"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["revoked_by"], ["agents.id"], name=op.f("fk_policies_revoked_by_agents"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_policies")),
    )
    open_ = sa.text("revoked_at IS NULL")
    op.create_index(
        "uq_policies_granted", "policies", ["intent"], unique=True, sqlite_where=open_, postgresql_where=open_
    )
    op.create_table(
        "saved_filters",
        sa.Column("agent_id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=60), nullable=False),
        sa.Column("view", sa.String(length=20), nullable=False),
        sa.Column("sort", sa.String(length=20), nullable=False),
        sa.Column("q", sa.String(length=200), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["agent_id"], ["agents.id"], name=op.f("fk_saved_filters_agent_id_agents"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_saved_filters")),
        sa.UniqueConstraint("agent_id", "name", name=op.f("uq_saved_filters_agent_id_name")),
    )
    op.add_column("suggestions", sa.Column("policy_id", sa.String(length=36), nullable=True))
    op.add_column("suggestions", sa.Column("policy_bound", sa.Double(), nullable=True))


def downgrade() -> None:
    op.drop_column("suggestions", "policy_bound")
    op.drop_column("suggestions", "policy_id")
    op.drop_table("saved_filters")
    op.drop_table("policies")
