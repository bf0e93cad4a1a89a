"""corrections intents thresholds"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "intents",
        sa.Column("name", sa.String(length=60), nullable=False),
        sa.Column("description", sa.String(length=500), nullable=False),
        sa.Column("examples", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("agent_id", sa.String(length=36), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["agent_id"], ["agents.id"], name=op.f("fk_intents_agent_id_agents"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_intents")),
        sa.UniqueConstraint("name", name=op.f("uq_intents_name")),
    )
    op.create_table(
        "label_thresholds",
        sa.Column("head", sa.String(length=40), nullable=False),
        sa.Column("label", sa.String(length=80), nullable=False),
        sa.Column("threshold", sa.Double(), nullable=False),
        sa.Column("agent_id", sa.String(length=36), nullable=True),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["agent_id"], ["agents.id"], name=op.f("fk_label_thresholds_agent_id_agents"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_label_thresholds")),
        sa.UniqueConstraint("head", "label", name=op.f("uq_label_thresholds_head_label")),
    )
    op.create_table(
        "sender_exceptions",
        sa.Column("sender", sa.String(length=320), nullable=False),
        sa.Column("head", sa.String(length=40), nullable=False),
        sa.Column("label", sa.String(length=80), nullable=False),
        sa.Column("agent_id", sa.String(length=36), nullable=True),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["agent_id"], ["agents.id"], name=op.f("fk_sender_exceptions_agent_id_agents"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sender_exceptions")),
        sa.UniqueConstraint("sender", "head", "label", name=op.f("uq_sender_exceptions_sender_head_label")),
    )
    op.create_table(
        "intent_versions",
        sa.Column("intent_id", sa.String(length=36), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("description", sa.String(length=500), nullable=False),
        sa.Column("examples", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.Column("agent_id", sa.String(length=36), nullable=True),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["agent_id"], ["agents.id"], name=op.f("fk_intent_versions_agent_id_agents"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["intent_id"], ["intents.id"], name=op.f("fk_intent_versions_intent_id_intents"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_intent_versions")),
        sa.UniqueConstraint("intent_id", "version", name=op.f("uq_intent_versions_intent_id_version")),
    )
    op.create_table(
        "corrections",
        sa.Column("message_id", sa.String(length=36), nullable=False),
        sa.Column("head", sa.String(length=40), nullable=False),
        sa.Column("old_label", sa.String(length=80), nullable=False),
        sa.Column("old_score", sa.Double(), nullable=True),
        sa.Column("new_label", sa.String(length=80), nullable=False),
        sa.Column("sender", sa.String(length=320), nullable=False),
        sa.Column("agent_id", sa.String(length=36), nullable=True),
        sa.Column("held_out", sa.Boolean(), nullable=False),
        sa.Column("over_cap", sa.Boolean(), nullable=False),
        sa.Column("undone_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["agent_id"], ["agents.id"], name=op.f("fk_corrections_agent_id_agents"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["message_id"], ["messages.id"], name=op.f("fk_corrections_message_id_messages"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_corrections")),
    )
    with op.batch_alter_table("corrections", schema=None) as batch_op:
        batch_op.create_index("ix_corrections_head", ["head", "created_at"], unique=False)
        batch_op.create_index("ix_corrections_message", ["message_id", "head"], unique=False)
        batch_op.create_index("ix_corrections_sender", ["sender", "created_at"], unique=False)

    for name, length in (("reply_intent", 20), ("sentiment", 20), ("language", 8)):
        op.add_column("threads", sa.Column(name, sa.String(length=length), nullable=False, server_default=""))


def downgrade() -> None:
    with op.batch_alter_table("corrections", schema=None) as batch_op:
        batch_op.drop_index("ix_corrections_sender")
        batch_op.drop_index("ix_corrections_message")
        batch_op.drop_index("ix_corrections_head")

    op.drop_table("corrections")
    op.drop_table("intent_versions")
    op.drop_table("sender_exceptions")
    op.drop_table("label_thresholds")
    op.drop_table("intents")
    with op.batch_alter_table("threads", schema=None) as batch_op:
        for name in ("reply_intent", "sentiment", "language"):
            batch_op.drop_column(name)
