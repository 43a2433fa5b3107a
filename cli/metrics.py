"""``uptier metrics``: what Prometheus reads, served or printed once."""

from __future__ import annotations

import signal
import threading
from typing import Annotated

import typer

from cli.output import say
from config.settings import load_settings
from ledger.metrics.page import Page
from ledger.metrics.server import served

STOPS = (signal.SIGINT, signal.SIGTERM)
PORT = 9464
"""What OpenTelemetry's exporters for Prometheus listen on; nothing else is registered there."""


def metrics(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one")] = PORT,
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    profile: Annotated[str | None, typer.Option(help="profile whose lanes are told")] = None,
    once: Annotated[bool, typer.Option("--once", help="Print the page and end.")] = False,
) -> None:
    """Serve the metrics of the ledger to Prometheus until Ctrl-C."""
    settings = load_settings(profile=profile)
    _ = settings.catalog  # what is wrong in it is told before anything is served
    if once:
        page = Page(settings)
        typer.echo(page.text(), nl=False)
        page.close()
        return
    stop = threading.Event()
    for number in STOPS:
        signal.signal(number, lambda *_: stop.set())
    with served(settings, host, port, names="--host and --port") as address:
        say(f"serving the metrics of profile {settings.profile} on {address}; stop with Ctrl-C")
        stop.wait()
