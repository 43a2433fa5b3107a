"""Intents of paid calls, what a refused lane leaves on a decision, and providers."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "provider",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("openings", sa.Integer(), nullable=False),
        sa.Column("open_until", sa.BigInteger(), nullable=True),
        sa.Column("probe_until", sa.BigInteger(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("paused_until", sa.BigInteger(), nullable=False),
        sa.Column("next_slot_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.add_column("decision", sa.Column("held_status", sa.String(length=16), nullable=True))
    op.add_column(
        "decision", sa.Column("held_reason", sa.Text(), nullable=False, server_default="")
    )
    op.add_column("decision", sa.Column("slot_at", sa.BigInteger(), nullable=True))
    op.add_column("attempt", sa.Column("token", sa.String(length=32), nullable=True))
    op.add_column("attempt", sa.Column("scopes", sa.Text(), nullable=False, server_default="[]"))
    intents = sa.text("outcome = 'intent'")
    op.create_index(
        "ix_attempt_outcome", "attempt", ["outcome"], sqlite_where=intents, postgresql_where=intents
    )


def downgrade() -> None:
    """Undo."""
    op.drop_index("ix_attempt_outcome", "attempt")
    for table, column in (
        ("attempt", "scopes"), ("attempt", "token"), ("decision", "slot_at"),
        ("decision", "held_reason"), ("decision", "held_status"),
    ):  # fmt: skip
        with op.batch_alter_table(table) as batch:
            batch.drop_column(column)
    op.drop_table("provider")
