"""For all tests: what started them may not make them deaf, and no property is timed."""

import signal

import pytest
from hypothesis import HealthCheck, settings

import cli.output  # noqa: F401 - before a test says how wide its terminal is

# A shell starts what it puts into the background with SIGINT ignored, and children inherit that:
# Ctrl-C as the tests send it would reach nobody.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A slow machine is no fault of what is tested; and what failed once fails again.
settings.register_profile(
    "uptier", deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
settings.load_profile("uptier")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What asks a real model bears a mark: each wants all cores, and two at once crawl."""
    for item in items:
        if "smollm2" in getattr(item, "fixturenames", ()):
            item.add_marker("model")
