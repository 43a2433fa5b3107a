"""An index of the attempts that cost money: what a day came to is looked up, not walked."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

PAID = sa.text("(cost_micros > 0 OR estimated_micros > 0)")


def upgrade() -> None:
    """Apply."""
    op.create_index("ix_attempt_paid", "attempt", ["id"], sqlite_where=PAID, postgresql_where=PAID)


def downgrade() -> None:
    """Undo."""
    op.drop_index("ix_attempt_paid", table_name="attempt")
