"""The daemon's actions: what each does, which arguments it takes, and when it is offered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from config.catalog import Catalog
from config.errors import ConfigurationError, InputError
from producers.swarm import governor, tools
from producers.swarm.repository import LOG, STATUS
from producers.swarm.state import Effect, Known
from producers.swarm.tools import Arguments, Prepared, Result, Tools

MOST_OPTIONS = 60
"""Files and folders that arguments are chosen from; of more a path is asked as text."""
TEXT_CHARS = 1_000
PAUSE = 5
"""Iterations between two of the same piece of thinking."""

Schema = dict[str, Any]


@dataclass(frozen=True)
class Sight:
    """What there is at the start of an iteration: the history, and the files and folders of the
    directory with when each was last changed, in microseconds since 1970. ``long`` are the files
    that do not fit into a prompt."""

    catalog: Catalog
    known: Known
    files: Mapping[str, int]
    folders: Mapping[str, int]
    long: frozenset[str] = frozenset()
    is_child: bool = False

    @property
    def changed_at(self) -> int:
        """When anything in the directory was last changed."""
        return max((*self.files.values(), *self.folders.values()), default=0)

    def fresh(self, action: str, name: str, values: Mapping[str, int]) -> tuple[str, ...]:
        """Those values of an argument that the action was not done with since they changed."""
        return tuple(
            v for v, changed in values.items()
            if not self.known.is_known(action, {name: v}, changed)
        )  # fmt: skip


def _as_given(_tools: Tools, given: Arguments) -> Prepared:
    return Prepared(dict(given))


@dataclass(frozen=True)
class Action:
    """One thing that the daemon can do; its name is also the kind of the decisions about it.

    ``schema`` gives the JSON schema of its arguments, or ``None`` if there is nothing left that
    it could be done with; without one it takes none. ``words`` are those of the program that it
    would run. ``critical`` actions are always put to the best model.
    """

    name: str
    effect: Effect
    does: str
    carry_out: Callable[[Tools, Arguments, Mapping[str, str]], Result]
    schema: Callable[[Sight], Schema | None] | None = None
    prepare: Callable[[Tools, Arguments], Prepared] = _as_given
    offered: Callable[[Sight], bool] = lambda sight: True
    words: Callable[[Tools, Arguments], tuple[str, ...]] = lambda used, given: ()
    critical: bool = False

    def is_offered(self, sight: Sight) -> bool:
        """Whether it makes sense now: what is known already is not offered again."""
        if sight.known.keeps_failing(self.name):
            return False
        if self.schema is None and self.effect is Effect.READS:
            return self.offered(sight) and not sight.known.is_known(self.name, {}, sight.changed_at)
        return self.offered(sight) and (self.schema is None or self.schema(sight) is not None)


def fields(**properties: Schema) -> Schema:
    """The schema of an object that has all of these properties and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def text(most: int, least: int = 1) -> Schema:
    """The schema of a text."""
    return {"type": "string", "minLength": least, "maxLength": most}


def one_of(name: str, values: tuple[str, ...]) -> Schema | None:
    """The schema of one argument of a closed set; ``None`` if the set is empty."""
    return fields(**{name: {"enum": list(values)}}) if values else None


def _file(sight: Sight) -> Schema | None:
    """A file that was not read since it changed."""
    if len(sight.files) > MOST_OPTIONS:
        return fields(path=text(200))
    return one_of("path", sight.fresh("read_file", "path", sight.files))


def _long_file(sight: Sight) -> Schema | None:
    """A file that no prompt shows as a whole; others are read."""
    files = {path: at for path, at in sight.files.items() if path in sight.long}
    return one_of("path", sight.fresh("summarize", "path", files)[:MOST_OPTIONS])


def _folder(sight: Sight) -> Schema | None:
    if len(sight.folders) > MOST_OPTIONS:
        return fields(path=text(200))
    # What lies deeper is listed as well, so any change is one of every folder.
    folders = dict.fromkeys(sight.folders, sight.changed_at)
    return one_of("path", sight.fresh("list_files", "path", folders))


def _command(sight: Sight) -> Schema | None:
    commands = dict.fromkeys(sight.catalog.swarm.commands, sight.changed_at)
    return one_of("command", sight.fresh("run", "command", commands))


def _remembered(least: int, action: str) -> Callable[[Sight], Schema | None]:
    def schema(sight: Sight) -> Schema | None:
        known = {topic: 0 for topic, count in sight.known.memories.items() if count >= least}
        return one_of("topic", sight.fresh(action, "topic", known))

    return schema


def _located(used: Tools, given: Arguments) -> Prepared:
    """The path as it is below the root, so that rules see through links and dots."""
    return Prepared({**given, "path": "/".join(used.directory.locate(given["path"])) or "."})


def _program(used: Tools, given: Arguments) -> tuple[str, ...]:
    return used.rules.commands.get(given.get("command", ""), ())


def _thinks(task: str) -> Callable[[str], Callable[[Tools, Arguments, Arguments], Result]]:
    """An action that is a piece of thinking about the objective, which only gives a text."""

    def named(kind: str) -> Callable[[Tools, Arguments, Arguments], Result]:
        def carry_out(used: Tools, _given: Arguments, _evidence: Arguments) -> Result:
            material = f"{used.status()}\nLast output:\n{used.last_output}"
            return Result(used.think(kind, task, material))

        return carry_out

    return named


def _not_lately(name: str) -> Callable[[Sight], bool]:
    return lambda sight: bool(sight.known.steps) and not sight.known.within(PAUSE, name)


def _unasked(name: str) -> Callable[[Sight], bool]:
    """Persons are not asked all the time."""

    def offered(sight: Sight) -> bool:
        pending = name in sight.known.pending.values()
        return not pending and not sight.known.within(PAUSE, name)

    return offered


_READS, _RECORDS, _CHANGES = Effect.READS, Effect.RECORDS, Effect.CHANGES

ALL = (
    Action("list_files", _READS, "lists the files of a folder", tools.list_files, _folder,
           _located),
    Action("read_file", _READS, "shows a file", tools.read_file, _file, _located),
    Action("search_text", _READS, "finds lines that hold a text", tools.search_text,
           lambda sight: fields(query=text(80)),
           offered=lambda sight: not sight.known.within(2, "search_text")),
    Action("git_status", _READS, "shows which files are changed",
           tools.git(*STATUS)),
    Action("git_log", _READS, "shows the last commits",
           tools.git(*LOG)),
    Action("git_diff", _READS, "shows what is changed since the last commit",
           tools.git_diff),
    Action("check_deps", _READS, "compares declared dependencies with imports",
           tools.check_deps),
    Action("summarize", _READS, "sums up a long file", tools.summarize, _long_file, _located),
    Action("write_memory", _RECORDS, "notes something that is worth knowing later",
           tools.write_memory, lambda sight: fields(content=text(300)),
           offered=lambda sight: sight.known.new_since("write_memory")),
    Action("query_memory", _READS, "tells what is noted under a topic", tools.query_memory,
           _remembered(1, "query_memory")),
    Action("consolidate", _RECORDS, "puts the notes of a topic into one", tools.consolidate,
           _remembered(3, "consolidate")),
    Action("edit_file", _CHANGES, "puts a text into the place of another one in a file",
           tools.edit_file,
           lambda sight: fields(path=text(200), find=text(TEXT_CHARS, 0),
                                replace=text(TEXT_CHARS, 0)),
           tools.prepare_edit,
           offered=lambda sight: bool(sight.known.done("read_file"))),
    Action("run", _CHANGES, "runs one of the allowed commands", tools.run_command, _command,
           tools.prepare_command, words=_program),
    Action("orch_status", _READS, "tells how far this work has come",
           lambda used, given, evidence: Result(used.status()),
           offered=_not_lately("orch_status")),
    Action("debug_error", _READS, "finds the cause of what went wrong last",
           _thinks("Say what caused the last failure and what to do about it.")("debug_error"),
           offered=lambda sight: sight.known.failed_last
           and not sight.known.within(PAUSE, "debug_error")),
    Action("orchestrate", _READS, "plans the next steps",
           _thinks("Plan the next three steps towards the objective.")("orchestrate"),
           offered=_not_lately("orchestrate")),
    Action("multi_file_refactor", _READS, "proposes a change of several files",
           _thinks("Propose a change of several files: for each file what to change and why.")(
               "multi_file_refactor"),
           offered=lambda sight: len(sight.known.done("read_file")) > 1
           and not sight.known.within(PAUSE, "multi_file_refactor")),
    Action("exec", _CHANGES, "runs any program, if a person approves", tools.execute,
           lambda sight: fields(argv={"type": "array", "items": text(200), "minItems": 1,
                                      "maxItems": 12}),
           offered=_unasked("exec"), words=lambda used, given: tuple(given.get("argv", ())),
           critical=True),
    Action("http_request", _CHANGES, "fetches an address of the web, if a person approves",
           tools.http_request,
           lambda sight: fields(method={"enum": ["GET", "HEAD"]}, url=text(300)),
           tools.prepare_request, offered=_unasked("http_request"), critical=True),
    Action("spawn_daemon", _CHANGES, "starts another daemon, if a person approves",
           tools.spawn_daemon, lambda sight: fields(objective=text(300)),
           offered=lambda sight: not sight.is_child and _unasked("spawn_daemon")(sight),
           critical=True),
)  # fmt: skip
ACTIONS = {action.name: action for action in ALL}
ASKED = ("daemon_action", "classify_memory")
"""Kinds that are asked beside the actions' own."""


def allowed_actions(catalog: Catalog, wanted: tuple[str, ...] = ()) -> tuple[Action, ...]:
    """The actions of a daemon: those ``wanted``, or all that the governor does not always deny.

    Raises:
        InputError: one that is wanted is unknown or denied, or a kind is missing in the profile.
        ConfigurationError: the governor's rules name an action that there is not.
    """
    place = f"profile {catalog.profile!r}"
    governor.check_names(catalog.swarm.governor, ACTIONS, place)
    for name in wanted:
        if name not in ACTIONS:
            raise InputError(
                f"--actions {name!r} is no action of the daemon: choose from {', '.join(ACTIONS)}"
            )
        reason = governor.always_denied(catalog.swarm.governor, name)
        if reason is not None:
            raise InputError(f"--actions {name!r} is denied by the governor: {reason}; drop it")
    names = wanted or tuple(
        n for n in ACTIONS if governor.always_denied(catalog.swarm.governor, n) is None
    )
    for kind in (*names, *ASKED):
        if kind not in catalog.kinds:
            raise InputError(
                f"{place} has no kind {kind!r}, which the daemon asks: add "
                'include = ["swarm"] to it'
            )
    if not names:
        raise ConfigurationError(f"{place}: the governor denies every action: allow one")
    return tuple(ACTIONS[name] for name in dict.fromkeys(names))
