"""Counts beside the changes, their totals, and an index that answers for what is open."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

LONG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "tally",
        sa.Column("id", LONG, primary_key=True, autoincrement=True),
        sa.Column("counts", sa.Text(), nullable=False),
    )
    op.create_table(
        "tally_total",
        sa.Column("key", sa.String(length=400), primary_key=True),
        sa.Column("value", sa.BigInteger(), nullable=False),
    )
    op.drop_index("ix_decision_state_due", table_name="decision")
    op.create_index(
        "ix_decision_state_due", "decision", ["state", "not_before", "lane", "queued_at"]
    )


def downgrade() -> None:
    """Undo."""
    op.drop_index("ix_decision_state_due", table_name="decision")
    op.create_index("ix_decision_state_due", "decision", ["state", "not_before"])
    op.drop_table("tally_total")
    op.drop_table("tally")
