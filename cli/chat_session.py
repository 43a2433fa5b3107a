"""``uptier session``: an agent's requests, one after another, answered as they are written."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from filelock import FileLock, Timeout

from cli.chat_lines import COMMANDS, Line, parsed, read_script, wish_of
from cli.chat_screen import Screen, cost_line, history, print_summary
from cli.output import out, print_json, say
from cli.session import Session
from cli.session import session as open_session
from config.errors import InputError, UptierError
from config.load import load_catalog
from config.settings import Settings, load_settings
from ledger.database import migrate, open_ledger
from ledger.reports import report
from ledger.runs import RunInfo, find_run
from producers.nodespace.agents import agent_of, changed, planned, preferences_of
from producers.nodespace.session import MODE, NodeSession, bare
from producers.nodespace.summary import shown, summary
from producers.streaming import Piece
from routing.decision import Preferences
from workers.limits import check_fits

PROMPT = "> "


def session(
    agent: Annotated[str | None, typer.Option(help="who asks; else the profile's first")] = None,
    preset: Annotated[str | None, typer.Option(help="creator, enterprise or the profile's")] = None,
    privacy: Annotated[str | None, typer.Option(help="low, medium, high or maximum")] = None,
    adapter: Annotated[str | None, typer.Option(help="LoRA adapter to answer with")] = None,
    max_cost: Annotated[
        str | None, typer.Option(help="dollars that one request may cost", metavar="USD")
    ] = None,
    profile: Annotated[str | None, typer.Option(help="catalog of models, or a .toml file")] = None,
    script: Annotated[Path | None, typer.Option(help="file with a request a line")] = None,
    seed: Annotated[int, typer.Option(min=0, help="for the wording of texts")] = 0,
    resume: Annotated[bool, typer.Option(help="go on with the last session")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the report as JSON")] = False,
) -> int:
    """Ask as an agent: a request a line, answers as they are written, a report at the end."""
    settings = load_settings(profile=profile)
    given = {"preset": preset, "privacy": privacy, "adapter": adapter, "max_cost_usd": max_cost}
    lines = None if script is None else read_script(script)
    asked = _Asked(
        agent, {name: value for name, value in given.items() if value is not None}, seed, lines
    )
    old = _last(settings) if resume else None
    opening = _resumed(settings, old, asked) if old is not None else _begun(settings, asked)
    _check(settings, opening, asked)
    with (
        _alone(settings, old),
        open_session(
            settings, mode=MODE, seed=opening.seed, config=opening.config, run=old
        ) as live,
        _alone(settings, None if old is not None else live.run),
    ):
        return _hold(live, opening, asked, resume=resume, as_json=as_json)


@dataclass(frozen=True)
class _Asked:
    """What the command line says."""

    agent: str | None
    wishes: dict[str, Any]
    seed: int
    lines: list[Line] | None


@dataclass(frozen=True)
class _Opening:
    """With what a session begins, or goes on."""

    agent: str
    preferences: Preferences
    seed: int
    config: dict[str, Any]


def _begun(settings: Settings, asked: _Asked) -> _Opening:
    name, agent = agent_of(settings.catalog, asked.agent)
    preferences, missing = preferences_of(agent, settings.catalog)
    if missing is not None and "adapter" not in asked.wishes:
        say(missing)
    preferences = changed(preferences, **asked.wishes)
    config = {
        "agent": name,
        "wishes": preferences.model_dump(mode="json", exclude_defaults=True),
        "script": _digest(asked.lines),
    }
    return _Opening(name, preferences, asked.seed, config)


def _resumed(settings: Settings, old: RunInfo, asked: _Asked) -> _Opening:
    """The last session with its wishes, changed by what the command line says."""
    name = str(old.config["agent"])
    if asked.agent not in (None, name):
        raise InputError(
            f"the last session is of agent {name!r}, not {asked.agent!r}: resume it without --agent"
        )
    if asked.lines is not None and _digest(asked.lines) != old.config.get("script"):
        raise InputError(
            "the last session had another script, or none: resume it without --script, or start "
            "one without --resume"
        )
    agent_of(settings.catalog, name)
    preferences = changed(Preferences.model_validate(old.config["wishes"]), **asked.wishes)
    return _Opening(name, preferences, old.seed, old.config)


def _last(settings: Settings) -> RunInfo:
    migrate(settings)
    engine = open_ledger(settings)
    try:
        run = find_run(engine, mode=MODE)
    finally:
        engine.dispose()
    if run is None:
        raise InputError("there is no session to resume: start one without --resume")
    if run.profile != settings.profile:
        raise InputError(
            f"the last session is of profile {run.profile!r}, not {settings.profile!r}: resume it "
            f"with --profile {run.profile}"
        )
    return run


@contextmanager
def _alone(settings: Settings, run: RunInfo | None) -> Iterator[None]:
    """Two processes in one session would take each other's answers for their own."""
    if run is None:
        yield
        return
    folder = settings.data_dir / "sessions"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{run.id}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"session {run.id} is open elsewhere: end it there, or start one without --resume"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _check(settings: Settings, opening: _Opening, asked: _Asked) -> None:
    """Refuse what cannot be asked, before anything is started."""
    preferences = opening.preferences
    for line in [Line(None, "?"), *(asked.lines or ())]:
        if line.command is not None and wish_of(line).keys() <= Preferences.model_fields.keys():
            preferences = changed(preferences, **wish_of(line))
        text = line.text if line.command is None else "?"
        decision = bare(opening.agent, text, preferences, settings.catalog)
        check_fits(settings, planned(decision, settings.catalog, settings.absent_lanes), decision)


def _digest(lines: Sequence[Line] | None) -> str | None:
    if lines is None:
        return None
    texts = [[line.command, line.text] for line in lines]
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


def _hold(live: Session, opening: _Opening, asked: _Asked, *, resume: bool, as_json: bool) -> int:
    replay = resume and asked.lines is not None
    chat = NodeSession(
        live.client, live.engine, live.settings.catalog, live.settings.absent_lanes, opening.agent,
        opening.preferences, seed=opening.seed, clock=time.monotonic, replay=replay,
    )  # fmt: skip
    screen = Screen(quiet=as_json)
    screen.line(_greeting(chat, live.settings))
    talk = _Talk(chat, screen, live.settings, at_terminal=asked.lines is None and _is_terminal())
    talk.go_through(asked.lines)
    return _report(live, chat, as_json=as_json, strict=not talk.at_terminal)


def _greeting(chat: NodeSession, settings: Settings) -> str:
    wishes, profile = chat.preferences, settings.catalog.profile
    return (
        f"Agent {chat.agent}, profile {profile}: preset {wishes.preset or 'none'}, "
        f"privacy {chat.privacy.value}, adapter {wishes.adapter or 'none'}; /help lists commands\n"
    )


class _Talk:
    """Goes through the lines of a script, a pipe or a person."""

    def __init__(
        self, chat: NodeSession, screen: Screen, settings: Settings, *, at_terminal: bool
    ) -> None:
        self.at_terminal = at_terminal
        self._chat = chat
        self._screen = screen
        self._settings = settings

    def go_through(self, lines: Sequence[Line] | None) -> None:
        """Take line after line until they end, or one of them ends the session."""
        for line in _typed() if lines is None else map(_shown_line, lines):
            try:
                found = parsed(line)
                if found is None:
                    continue
                if not self.at_terminal:
                    self._screen.line(f"{PROMPT}{line.strip()}")
                if found.command == "quit":
                    return
                self._take(found)
            except UptierError as error:
                if not self.at_terminal or not isinstance(error, InputError):
                    raise
                say(str(error))

    def _take(self, line: Line) -> None:
        if line.command is None:
            self._ask(line.text)
        elif line.command == "cost":
            self._screen.line(cost_line(self._chat.turns, self._chat.preferences.max_cost_usd))
        elif line.command == "history":
            for one in history(self._chat.turns):
                self._screen.line(one)
        elif line.command == "help":
            for name, what in COMMANDS.items():
                self._screen.line(f"/{name:<9} {what}")
        else:
            self._chat.change(**wish_of(line))
            self._screen.line(
                f"{line.command} {line.text}; privacy {self._chat.privacy.value} holds"
            )

    def _ask(self, request: str) -> None:
        decision = self._chat.probe(self._chat.preferences, request)
        catalog, absent = self._settings.catalog, self._settings.absent_lanes
        check_fits(self._settings, planned(decision, catalog, absent), decision)
        try:
            with closing(self._chat.ask(request)) as items:
                for item in items:
                    if isinstance(item, Piece):
                        self._screen.piece(item)
                    else:
                        self._screen.turn(item)
        except KeyboardInterrupt:
            self._screen.broken_off()
            if not self.at_terminal:
                raise


def _is_terminal() -> bool:
    return sys.stdin.isatty()


def _typed() -> Iterator[str]:
    """Lines of standard input; a person gets a prompt, and lines that can be edited."""
    if not _is_terminal():
        yield from sys.stdin
        return
    with suppress(ImportError):
        import readline  # noqa: F401 - input() edits lines with it
    while True:
        try:
            yield input(PROMPT)
        except EOFError:
            return


def _shown_line(line: Line) -> str:
    """A line of a script as it would be typed."""
    if line.command is None:
        return f"/{line.text}" if line.text.startswith("/") else line.text
    return f"/{line.command} {line.text}".strip()


def _report(live: Session, chat: NodeSession, *, as_json: bool, strict: bool) -> int:
    whole = report(live.engine, live.settings, load_catalog(live.settings.profile), live.run)
    found = summary(chat.turns)
    if as_json:
        told = {
            "run": live.run.id,
            "agent": chat.agent,
            "session": found.model_dump(),
            "turns": [shown(turn) for turn in chat.turns],
            "report": whole.model_dump(),
        }
        print_json(json.dumps(told, indent=2))
    elif chat.turns:
        print_summary(found, chat.turns, whole.cost_usd)
        out.print(f"Run             {live.run.id}; `uptier session --resume` goes on with it")
    return 1 if strict and found.answered < found.requests else 0
