"""Calibrated probabilities beside the model's own; corrections are looked up by model."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("attempt", sa.Column("calibrated", sa.Text(), nullable=True))
    op.create_index("ix_calibration_model", "calibration", ["model", "fingerprint"])


def downgrade() -> None:
    """Undo."""
    op.drop_index("ix_calibration_model", "calibration")
    with op.batch_alter_table("attempt") as batch:
        batch.drop_column("calibrated")
