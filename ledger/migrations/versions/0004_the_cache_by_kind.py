"""Cached answers know their kind, their end, and what is alike; audits of answers to ones alike."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. Entries of before leave: their keys lack the privacy domain, so none is found."""
    op.execute(sa.text("DELETE FROM cache_entry"))
    op.add_column(
        "cache_entry", sa.Column("kind", sa.String(length=64), nullable=False, server_default="")
    )
    op.add_column("cache_entry", sa.Column("expires_at", sa.BigInteger(), nullable=True))
    op.add_column("cache_entry", sa.Column("space", sa.String(length=64), nullable=True))
    op.add_column("cache_entry", sa.Column("vector", sa.LargeBinary(), nullable=True))
    op.create_index("ix_cache_entry_space", "cache_entry", ["space"])
    op.create_table(
        "cache_audit",
        sa.Column("decision_id", sa.String(length=32), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("embedder", sa.String(length=32), nullable=False),
        sa.Column("similarity", sa.Float(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("agreed", sa.Boolean(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("decision_id"),
    )
    op.create_index("ix_cache_audit_kind", "cache_audit", ["kind", "created_at"])


def downgrade() -> None:
    """Undo."""
    op.drop_table("cache_audit")
    op.drop_index("ix_cache_entry_space", "cache_entry")
    for column in ("vector", "space", "expires_at", "kind"):
        with op.batch_alter_table("cache_entry") as batch:
            batch.drop_column(column)
