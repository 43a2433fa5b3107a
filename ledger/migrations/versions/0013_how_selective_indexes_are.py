"""SQLite is told how much of a ledger each index leaves: unasked it takes a state for rare.

PostgreSQL finds out by itself (autovacuum).
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

# Rows in all, then how many are left by the first column, by the first two, and so on
# (https://www.sqlite.org/fileformat2.html#the_sqlite_stat1_table).
SELECTIVITY = {
    "sqlite_autoindex_decision_1": "1000000 1",  # id
    "sqlite_autoindex_decision_2": "1000000 100000 1",  # run, key
    "ix_decision_state_due": "1000000 100000 1000 1000 1",  # state, not_before, lane, queued_at
    "ix_decision_run_state": "1000000 100000 20000",
    "ix_decision_parent_id": "1000000 10",
}


def upgrade() -> None:
    """Apply."""
    connection = op.get_bind()
    if connection.dialect.name != "sqlite":
        return
    connection.exec_driver_sql("ANALYZE leader")  # makes the table of statistics
    connection.exec_driver_sql("DELETE FROM sqlite_stat1 WHERE tbl IN ('decision', 'leader')")
    rows = [{"idx": index, "stat": figures} for index, figures in SELECTIVITY.items()]
    insert = "INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES ('decision', :idx, :stat)"
    connection.execute(sa.text(insert), rows)


def downgrade() -> None:
    """Undo."""
    connection = op.get_bind()
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("DELETE FROM sqlite_stat1 WHERE tbl = 'decision'")
