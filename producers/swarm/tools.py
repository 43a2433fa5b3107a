"""What actions need to be carried out, and those that only look at the directory or change it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2
from sqlalchemy import Engine

from config.catalog import Catalog
from config.secrets import redact
from config.swarm import Swarm
from ledger import memories
from ledger.memories import NewMemory, Source
from ledger.records import storable
from ledger.swarm import State
from producers.swarm.commands import Ran, middle_cut, run_program
from producers.swarm.dependencies import dependencies
from producers.swarm.governor import is_withheld
from producers.swarm.repository import ask_git, changes
from producers.swarm.sandbox import Directory, Refused, fingerprint

MOST_HITS = 40
LINE_CHARS = 200
Arguments = Mapping[str, Any]


@dataclass(frozen=True)
class Result:
    """What an action said, whether it went well, and what is to be noted with it."""

    text: str
    state: State = State.DONE
    memory: NewMemory | None = None


@dataclass(frozen=True)
class Prepared:
    """An action's arguments in their one true form, and what tells later whether it was done."""

    arguments: dict[str, Any]
    evidence: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Tools:
    """What actions of one iteration work with.

    ``think`` has a piece of text written by a kind's lane, ``classify`` finds a memory's topic,
    ``child`` works on an objective with a daemon of its own and gives its report, ``status`` tells
    of this one.
    """

    directory: Directory
    catalog: Catalog
    engine: Engine
    run_id: str
    think: Callable[[str, str, str], str]
    classify: Callable[[str], str]
    child: Callable[[str], str]
    status: Callable[[], str]
    private: bool = False
    """Whether nothing that it shows leaves the machine."""
    last_output: str = ""
    """What the last action that said something said."""

    @property
    def rules(self) -> Swarm:
        """The profile's settings of the daemon."""
        return self.catalog.swarm

    def run(self, argv: Sequence[str]) -> Ran:
        """Run a program in the directory, within the bounds."""
        return run_program(
            argv, self.directory.root, timeout_s=self.rules.command_s,
            max_chars=self.rules.output_chars,
        )  # fmt: skip


def list_files(tools: Tools, given: Arguments, _: Arguments) -> Result:
    """Files below a folder with their sizes."""
    found = tools.directory.files(given["path"])
    return Result("\n".join(f"{one.path} ({one.size} bytes)" for one in found) or "no files")


def read_file(tools: Tools, given: Arguments, _: Arguments) -> Result:
    """A file's text."""
    return Result(tools.directory.text(given["path"]) or "(empty)")


def search_text(tools: Tools, given: Arguments, _: Arguments) -> Result:
    """Lines that hold a text, whatever its case."""
    wanted, hits = given["query"].casefold(), list[str]()
    for one in tools.directory.files():
        if is_withheld(tools.rules.governor, one.path):
            continue
        try:
            lines = tools.directory.text(one.path).splitlines()
        except Refused:  # binary, too large, or gone
            continue
        for number, line in enumerate(lines, start=1):
            if wanted in line.casefold():
                hits.append(f"{one.path}:{number}: {line.strip()[:LINE_CHARS]}")
        if len(hits) > MOST_HITS:
            return Result("\n".join([*hits[:MOST_HITS], "and more"]))
    return Result("\n".join(hits) or f"no line holds {given['query']!r}")


def git(*words: str) -> Callable[[Tools, Arguments, Arguments], Result]:
    """An action that asks git something."""

    def ask(tools: Tools, _given: Arguments, _evidence: Arguments) -> Result:
        return told(ask_git(tools.directory, tools.rules, words), "nothing to tell")

    return ask


def git_diff(tools: Tools, _given: Arguments, _: Arguments) -> Result:
    """What is changed since the last commit."""
    return told(changes(tools.directory, tools.rules), "nothing to tell")


def check_deps(tools: Tools, _given: Arguments, _: Arguments) -> Result:
    """What is declared, and what is imported without being declared."""
    return Result(dependencies(tools.directory))


def prepare_edit(tools: Tools, given: Arguments) -> Prepared:
    """The edit with its file's fingerprints before and after it."""
    path = "/".join(tools.directory.locate(given["path"]))
    before, text = _edited(tools.directory, path, given)
    evidence = {"before": fingerprint(before), "after": fingerprint(text.encode())}
    return Prepared({**given, "path": path}, evidence)


def edit_file(tools: Tools, given: Arguments, evidence: Arguments) -> Result:
    """Put a text into the place of another one in a file, or at its end."""
    before, text = _edited(tools.directory, given["path"], given)
    if fingerprint(before) != evidence.get("before"):
        raise Refused(f"{given['path']} was changed since the edit was thought out: read it again")
    tools.directory.write(given["path"], text)
    made = "made" if before is None else "changed"
    return Result(f"{made} {given['path']}: {len(text)} characters now")


def edit_outcome(directory: Directory, given: Arguments, evidence: Arguments) -> bool | None:
    """Whether an edit whose daemon ended was made; ``None`` if the file is neither old nor new."""
    path = given["path"]
    try:
        now = directory.read(path) if directory.exists(path) else None
    except Refused:
        return None
    return {evidence.get("after"): True, evidence.get("before"): False}.get(fingerprint(now))


def prepare_command(tools: Tools, given: Arguments) -> Prepared:
    """The command with the program that its name stands for now, which is what is ruled on."""
    return Prepared(dict(given), {"program": json.dumps(_program(tools, given))})


def run_command(tools: Tools, given: Arguments, evidence: Arguments) -> Result:
    """Run one of the profile's commands."""
    program = _program(tools, given)
    if evidence.get("program") not in (None, json.dumps(program)):
        raise Refused(f"command {given['command']!r} is another program than when it was ruled on")
    return told(tools.run(program), "it said nothing")


def execute(tools: Tools, given: Arguments, _: Arguments) -> Result:
    """Run any program; a person has approved it."""
    return told(tools.run(given["argv"]), "it said nothing")


def http_request(tools: Tools, given: Arguments, _: Arguments) -> Result:
    """Fetch an address, without following where it redirects to; a person has approved it."""
    most, longest, parts, size = tools.rules.output_chars, tools.rules.command_s, list[bytes](), 0
    deadline = time.monotonic() + longest
    try:
        with (
            httpx2.Client(timeout=longest, trust_env=False) as client,
            client.stream(given["method"], given["url"]) as answer,
        ):
            for chunk in answer.iter_bytes():
                parts.append(chunk)
                size += len(chunk)
                if size > most:
                    break
                if time.monotonic() > deadline:  # the client's own bounds a silence alone
                    raise Refused(f"{given['url'][:80]} took longer than {longest:g} s")
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
        raise Refused(f"{given['url'][:80]} does not answer: {error}") from None
    text = b"".join(parts).decode("utf-8", "replace")
    state = State.DONE if answer.status_code < 400 else State.FAILED
    return Result(f"status {answer.status_code}\n{text[:most]}", state)


def prepare_request(tools: Tools, given: Arguments) -> Prepared:
    """The request, if its address is one of the web."""
    if not re.fullmatch(r"https?://[^\s/@]+(/\S*)?", given["url"]):
        raise Refused(f"url {given['url'][:80]!r} is no http or https address")
    return Prepared(dict(given))


def spawn_daemon(tools: Tools, given: Arguments, _: Arguments) -> Result:
    """Have a daemon of its own work on an objective; a person has approved it."""
    return Result(tools.child(given["objective"]))


def write_memory(tools: Tools, given: Arguments, _: Arguments) -> Result:
    """Note something under the topic that the small model gives it."""
    topic = tools.classify(given["content"])
    memory = NewMemory(topic, given["content"], Source.DAEMON, tools.run_id)
    return Result(f"noted under {topic}: {given['content']}", memory=memory)


def query_memory(tools: Tools, given: Arguments, _: Arguments) -> Result:
    """What is noted under a topic."""
    found = memories.query(tools.engine, topic=given["topic"], last=50, leaving=not tools.private)
    return Result("\n".join(one.content for one in found) or f"nothing about {given['topic']}")


def consolidate(tools: Tools, given: Arguments, _: Arguments) -> Result:
    """One memory in the place of all of a topic."""
    found = memories.query(tools.engine, topic=given["topic"], last=50, leaving=not tools.private)
    if len(found) < 2:
        raise Refused(f"there is nothing to put together about {given['topic']}")
    text = tools.think(
        "consolidate", f"Put these notes about {given['topic']} into one that keeps every fact.",
        "\n".join(f"- {one.content}" for one in found),
    )  # fmt: skip
    memory = NewMemory(
        given["topic"], text, Source.CONSOLIDATED, tools.run_id, tuple(one.id for one in found)
    )
    return Result(f"{len(found)} notes about {given['topic']} are one now: {text}", memory=memory)


def summarize(tools: Tools, given: Arguments, _: Arguments) -> Result:
    """A file in a few sentences."""
    text = tools.directory.text(given["path"])
    return Result(tools.think("summarize", f"Sum up the file {given['path']}.", text))


def told(ran: Ran, silent: str) -> Result:
    """A program's output, and how it ended where it did not end well."""
    if ran.code is None:
        return Result(f"its time was over and it was ended\n{ran.output}", State.FAILED)
    if ran.code:
        return Result(f"exit code {ran.code}\n{ran.output}", State.FAILED)
    return Result(ran.output.strip() or silent)


def bounded(result: Result, most: int) -> Result:
    """The result with an output of at most ``most`` characters, fit for every database."""
    text = redact(middle_cut(storable(result.text), most))
    return Result(text, result.state, result.memory)


def _program(tools: Tools, given: Arguments) -> list[str]:
    """The words of a command of the profile."""
    words = tools.rules.commands.get(given["command"])
    if words is None:
        raise Refused(f"the profile has no command {given['command']!r}: choose another")
    return list(words)


def _edited(directory: Directory, path: str, given: Arguments) -> tuple[bytes | None, str]:
    """A file's content as it is, ``None`` if it is not there, and its text after an edit."""
    before = directory.read(path) if directory.exists(path) else None
    try:
        text = (before or b"").decode()
    except UnicodeDecodeError:
        raise Refused(f"{path} is not UTF-8 text: choose another file") from None
    find, put = given["find"], given["replace"]
    if not find:
        joint = "" if not text or text.endswith("\n") else "\n"
        after = text + joint + put + ("" if put.endswith("\n") else "\n")
    elif before is None:
        raise Refused(f"{path} is not there: leave find empty to make it")
    elif text.count(find) != 1:
        raise Refused(f"find occurs {text.count(find)} times in {path}: it must occur once")
    else:
        after = text.replace(find, put)
    if after == text:
        raise Refused(f"the edit would leave {path} as it is")
    return before, after
