"""Audits of accepted answers and the certificates from their labels, as a profile sets them."""

from __future__ import annotations

from decimal import Decimal

from pydantic import Field

from config.prices import Dollars
from config.weights import Strict


class Audit(Strict):
    """How many accepted answers the top lane is asked again, to label them."""

    share: float = Field(default=0.0, ge=0, le=1)
    """Probability with which an accepted answer is chosen; 0 is no audit."""
    per_day_usd: Dollars = Decimal(1)
    """What all audits of a ledger may cost on a day of the calendar (UTC)."""


class Certifying(Strict):
    """What certificates promise, and whether they are fitted as labels come in."""

    certify: bool = False
    """For all kinds; without it only for those that are ``certified``."""
    alpha: float = Field(default=0.05, gt=0, lt=1)
    """The largest share of wrong answers among the accepted ones."""
    delta: float = Field(default=0.1, gt=0, lt=1)
    """The probability with which a certificate may break that."""
    min_labels: int = Field(default=100, ge=1)
    """Labelled answers of a lane before it is tried; then each time they have doubled."""
