"""The broker that is watched, and an application for Celery's own tools on it.

``celery --app workers.watched inspect active`` asks the workers of the stack of this machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from config.errors import ConfigurationError
from config.queues import make_app
from config.settings import Settings, load_settings
from workers.stack_state import StackState, serves_broker

if TYPE_CHECKING:
    from celery import Celery

    app: Celery


def stack_in_use(settings: Settings) -> StackState | None:
    """The stack of the data directory, if it runs."""
    state = StackState.read(settings.stack_dir)
    return state if state is not None and state.owner.alive() else None


def broker_in_use(settings: Settings) -> str:
    """The broker that the settings name, or that of the stack which runs here.

    Raises:
        ConfigurationError: there is neither.
    """
    state = stack_in_use(settings)
    url = settings.broker_url or (state.broker_url if state is not None else None)
    if url is None:
        raise ConfigurationError(
            f"no broker to watch: set UPTIER_BROKER_URL, or run `uptier up` on {settings.data_dir}"
        )
    return url


def as_it_runs(settings: Settings) -> Settings:
    """The settings with the profile of the stack that runs here, whose queues are to be seen."""
    state = stack_in_use(settings)
    if state is None or not serves_broker(state, settings) or state.profile == settings.profile:
        return settings
    return settings.model_copy(update={"profile": state.profile})


def __getattr__(name: str) -> object:
    """The application, made when a tool asks for it."""
    if name != "app":
        raise AttributeError(name)
    settings = load_settings()
    return make_app(as_it_runs(settings), broker_in_use(settings))
