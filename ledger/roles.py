"""What decisions are asked for, as SQL tells it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import case

from ledger.tables import TABLES
from ledger.usage import Role
from routing.classification import CLASSIFICATION_KIND
from routing.consensus import PANEL_KEY
from routing.critique import CRITIC_KIND

DECISIONS = TABLES.tables["decision"]


def role() -> Any:
    """The role of a decision: a question of its asker's, or one that Uptier asks because of it."""
    columns = DECISIONS.c
    child = columns.parent_id.is_not(None)
    return case(
        (columns.propensity.is_not(None), Role.AUDIT.value),
        (child & (columns.kind == CRITIC_KIND), Role.CRITIQUE.value),
        (child & columns.key.startswith(PANEL_KEY), Role.VOTE.value),
        (columns.kind == CLASSIFICATION_KIND, Role.CLASSIFICATION.value),
        else_=Role.QUESTION.value,
    )
