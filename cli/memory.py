"""``uptier memory``: what daemons and persons noted, by topic and age."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine

from cli.chat_screen import printable
from cli.output import out, print_json
from cli.session import session
from config.errors import InputError
from config.settings import Settings, load_settings
from ledger import memories
from ledger.clock import SECOND, now
from ledger.database import migrate, open_ledger
from ledger.memories import NewMemory, Source
from ledger.outbox import new_id
from ledger.records import storable
from ledger.runs import finish_run, start_run
from producers.swarm.actions import allowed_actions
from producers.swarm.memory import question, seconds, topic_of
from routing.decision import Privacy

WIDE = 1000  # columns; a table takes what it needs of them
MODE = "memory"

app = typer.Typer(
    help="What daemons and persons noted for later.", no_args_is_help=True, rich_markup_mode=None
)

Profile = Annotated[str | None, typer.Option(help="catalog of models, or a .toml file")]
AsJson = Annotated[bool, typer.Option("--json", help="print everything as JSON")]


@app.command()
def query(
    topic: Annotated[str | None, typer.Option(help="this one only")] = None,
    recent: Annotated[str | None, typer.Option(help="not older than, as 1h, 24h or 7d")] = None,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """Show the memories in force, the oldest of them first."""
    settings = load_settings(profile=profile)
    since = None if recent is None else now() - seconds(recent) * SECOND
    migrate(settings)
    engine = open_ledger(settings)
    try:
        if topic is not None:
            _known_topic(topic, (*settings.catalog.swarm.topics, *memories.topics(engine)))
        found = memories.query(engine, topic=topic, since=since)
    finally:
        engine.dispose()
    if as_json:
        print_json(json.dumps({"memories": [asdict(one) for one in found]}, indent=2))
        return
    if not found:
        out.print("nothing is noted")
        return
    table = Table("when", "topic", "by", "memory", box=None)
    for one in found:
        when = datetime.fromtimestamp(one.created_at / SECOND, UTC).isoformat(timespec="seconds")
        table.add_row(when, one.topic, one.source.value, printable(one.content))
    Console(width=WIDE, highlight=False, markup=False).print(table)


@app.command()
def add(
    content: Annotated[str, typer.Argument(help="what is worth knowing later")],
    topic: Annotated[str | None, typer.Option(help="else the small model says it")] = None,
    privacy: Annotated[
        Privacy, typer.Option(help="high and maximum: only for prompts that stay on the machine")
    ] = Privacy.LOW,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """Note something under a topic."""
    settings = load_settings(profile=profile)
    text = content.strip()
    if not text or len(text) > memories.MAX_CHARS or storable(text) != text:
        raise InputError(
            f"a memory has 1 to {memories.MAX_CHARS} characters, not {len(text)}, and no NUL: "
            "correct it"
        )
    if topic is None:
        topic = _classified(settings, text, privacy)
    else:
        _known_topic(topic, settings.catalog.swarm.topics)
    migrate(settings)
    engine = open_ledger(settings)
    try:
        run_id = _private_run(engine, settings, privacy)
        id = memories.add(engine, NewMemory(topic, text, Source.PERSON, run_id), now())
    finally:
        engine.dispose()
    if as_json:
        print_json(json.dumps({"id": id, "topic": topic, "content": text}))
    else:
        out.print(f"noted under {topic}", markup=False)


def _classified(settings: Settings, text: str, privacy: Privacy) -> str:
    """The topic that the small model gives it; the memory itself stays as it is."""
    allowed_actions(settings.catalog)
    asked = question(settings.catalog, text, new_id(), privacy=privacy)
    with session(settings, mode=MODE) as live:
        return topic_of(settings.catalog, live.client.gather([asked])[0])


def _private_run(engine: Engine, settings: Settings, privacy: Privacy) -> str | None:
    """A run of that privacy, as which it is noted, where it must not leave the machine."""
    level = privacy.at_least(Privacy(settings.catalog.swarm.privacy))
    if not level.stays_home:
        return None
    run = start_run(
        engine, mode=MODE, profile=settings.profile, now=now(), config={"privacy": level.value}
    )
    finish_run(engine, run.id, now())
    return run.id


def _known_topic(topic: str, known: tuple[str, ...]) -> None:
    if topic not in known:
        raise InputError(
            f"--topic {topic!r} is unknown: choose one of {', '.join(dict.fromkeys(known))}"
        )
