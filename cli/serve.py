"""``uptier serve``: OpenAI's protocol over HTTP, every request a decision."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from cli.output import err, out, say
from cli.session import Session, session
from config.errors import InputError
from config.gateway import digest, new_key, take_plain_key
from config.settings import Settings, load_settings
from ledger.clock import now
from ledger.metrics.page import Page
from ledger.runs import finish_run
from producers.gateway.app import make_app
from producers.gateway.callers import Keyring, refuse_open_house
from producers.gateway.gate import MIB, Bounds, Gate
from producers.gateway.server import bound_socket
from producers.gateway.server import serve as serve_http
from routing.decision import Decision
from routing.policy import plan
from workers.limits import check_fits

GRACE_S = 10
OPTIONAL = (
    '# budget_usd = "5"', '# per_day_usd = "1"', '# privacy = "high"', "# max_concurrent = 8",
)  # fmt: skip
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"


def serve(
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one")] = 8000,
    profile: Annotated[str | None, typer.Option(help="catalog of models, or a .toml file")] = None,
    keys: Annotated[Path | None, typer.Option(help="file of keys that are let in")] = None,
    new_key_for: Annotated[
        str | None,
        typer.Option("--new-key", metavar="NAME", help="print lines for --keys, the key on stderr"),
    ] = None,
    max_concurrent: Annotated[int, typer.Option(min=1, help="requests under way at once")] = 512,
    max_body_mib: Annotated[int, typer.Option(min=1, help="longest body of a request")] = 4,
    max_file_mib: Annotated[int, typer.Option(min=1, help="longest file that is uploaded")] = 100,
    metrics: Annotated[
        bool, typer.Option("--metrics", help="tell Prometheus at /metrics, too")
    ] = False,
    timeout: Annotated[float, typer.Option(min=1, help="seconds an answer may take")] = 600,
    grace: Annotated[
        int, typer.Option(min=0, help="seconds that requests get to end when it stops")
    ] = GRACE_S,
) -> None:
    """Serve /v1/chat/completions and its like until Ctrl-C."""
    if new_key_for is not None:
        _print_new_key(new_key_for)
        return
    settings = load_settings(profile=profile)
    keyring = Keyring(None if keys is None else keys.expanduser(), take_plain_key())
    refuse_open_house(host, keyring)
    bounds = Bounds(max_concurrent, max_body_mib * MIB, max_file_mib * MIB, timeout)
    with bound_socket(host, port) as listener:
        config = {"host": host, "port": listener.getsockname()[1], "bounds": asdict(bounds)}
        with session(settings, mode="gateway", config=config) as live:
            _serve(live, keyring, bounds, listener, grace, metrics)
    say("stopped; requests that were under way were finished or cancelled")


def _serve(
    live: Session,
    keyring: Keyring,
    bounds: Bounds,
    listener: socket.socket,
    grace_s: int,
    metrics: bool,
) -> None:
    def gate() -> Gate:
        return Gate(live.settings, live.client, keyring, bounds, _fits(live.settings))

    def ready() -> None:
        host, port = listener.getsockname()[:2]
        say(f"serving profile {live.settings.profile} on http://{_in_url(host)}:{port}/v1, run "
            f"{live.run.id}; stop with Ctrl-C")  # fmt: skip

    try:
        serve_http(
            make_app(gate, bounds, partial(Page, live.settings) if metrics else None), listener,
            grace_s=grace_s,
            max_concurrent=bounds.max_concurrent, ready=ready,
        )  # fmt: skip
    finally:
        finish_run(live.engine, live.run.id, now())


def _fits(settings: Settings) -> Callable[[Decision], None]:
    def check(decision: Decision) -> None:
        check_fits(settings, plan(decision, settings.catalog, settings.absent_lanes), decision)

    return check


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _print_new_key(name: str) -> None:
    if not re.fullmatch(NAME, name):
        raise InputError(f"--new-key {name!r} is no name: use letters, digits, '.', '_' and '-'")
    key = new_key()
    err.print(f"the key of {name}, shown only now: {key}", markup=False)
    lines = [f'[keys."{name}"]', f'sha256 = "{digest(key)}"', *OPTIONAL]
    out.print("\n".join(lines), markup=False)
