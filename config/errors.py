"""The one hierarchy of errors. A message names the value, the place and the mend."""

from config.secrets import redact


class UptierError(Exception):
    """Base of every error that Uptier raises on purpose; commands exit with ``exit_code``."""

    exit_code = 1


class ConfigurationError(UptierError):
    """A setting, profile, catalog or file is wrong; nothing was started."""

    exit_code = 2


class InputError(UptierError):
    """What the caller asked for is wrong (a kind, an output, a prompt)."""

    exit_code = 2


class WeightsError(ConfigurationError):
    """Weights are missing, incomplete or not what their hash says."""


class BrokerUnavailable(ConfigurationError):
    """The broker does not answer, refuses the password, or its port is taken."""


class LedgerError(ConfigurationError):
    """The ledger cannot be opened, written or migrated."""


class StackError(UptierError):
    """A part of the embedded stack died or never became ready."""


class BackendError(UptierError):
    """A model could not answer.

    ``retryable`` says whether the same lane may be tried again; ``retry_after_s`` is the
    provider's own wish in seconds, where it gave one; ``unknown_charge_micros`` is the most that
    a paid call can have cost of which nobody knows whether it was served. ``outage`` says that the
    failure speaks against the provider as a whole, not against this one request; ``quota`` that
    the account has run out of money or of its allowance; ``ours`` that the fault is our own and
    says nothing of the provider.
    """

    def __init__(
        self,
        message: str,
        *,
        retryable: bool = True,
        retry_after_s: float | None = None,
        unknown_charge_micros: int | None = None,
        outage: bool = False,
        quota: bool = False,
        ours: bool = False,
    ) -> None:
        super().__init__(redact(message))  # providers quote what they were sent
        self.retryable = retryable
        self.retry_after_s = retry_after_s
        self.unknown_charge_micros = unknown_charge_micros
        self.outage = outage
        self.quota = quota
        self.ours = ours


class DeadlinePassed(BackendError):
    """The time in which an answer was wanted is over; nothing more is computed for it."""


class Cancelled(BackendError):
    """Nobody wants the answer any more; nothing more is computed for it."""

    def __init__(self) -> None:
        super().__init__("cancelled: nobody wants its answer any more", retryable=False, ours=True)
