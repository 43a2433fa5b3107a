"""The application for Celery's own tools: ``celery --app workers.watched flower``."""

from __future__ import annotations

from config.errors import ConfigurationError
from config.queues import make_app
from config.settings import Settings, load_settings
from workers.stack_state import StackState


def broker_in_use(settings: Settings) -> str:
    """The broker that the settings name, or that of the stack which runs here.

    Raises:
        ConfigurationError: there is neither.
    """
    state = StackState.read(settings.stack_dir)
    url = settings.broker_url or (state.broker_url if state is not None else None)
    if url is None:
        raise ConfigurationError(
            f"no broker to watch: set UPTIER_BROKER_URL, or run `uptier up` on {settings.data_dir}"
        )
    return url


_settings = load_settings()
app = make_app(_settings, broker_in_use(_settings))
