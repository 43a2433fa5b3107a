"""Answers below the bar that are not asked for again."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    with op.batch_alter_table("cache_entry") as table:
        table.add_column(
            sa.Column("status", sa.String(length=16), nullable=False, server_default="accepted")
        )


def downgrade() -> None:
    """Undo."""
    op.execute("delete from cache_entry where status <> 'accepted'")
    with op.batch_alter_table("cache_entry") as table:
        table.drop_column("status")
