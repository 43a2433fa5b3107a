"""Whether code parses: Python, SQL and JSON, each by a real parser."""

from __future__ import annotations

import ast
import json
import logging
import re
import textwrap
import warnings
from collections.abc import Iterator
from functools import cache
from itertools import islice
from typing import Any

from config.demands import Language

MAX_CODE = 10_000
"""Characters up to which code is parsed; beyond, parsing in depth costs stack and time."""
MAX_BLOCKS = 8
"""Fenced blocks of one answer that are parsed."""

_TAGS: dict[str, tuple[Language, str | None]] = {
    "python": ("python", None), "py": ("python", None), "python3": ("python", None),
    "json": ("json", None), "sql": ("sql", None), "postgresql": ("sql", "postgres"),
    "postgres": ("sql", "postgres"), "sqlite": ("sql", "sqlite"), "mysql": ("sql", "mysql"),
}  # fmt: skip
"""What the words after a fence stand for: a language, and a dialect of it."""
_FENCE = re.compile(r" {0,3}```[ \t]*([\w+-]*)")
_NAMES = {"python": "Python", "sql": "SQL", "json": "JSON"}


def syntax_fault(code: str, language: Language, dialect: str | None = None) -> str | None:
    """Why ``code`` is not ``language``, in words, or ``None`` if it parses.

    Python is that of the interpreter that runs this. Code of more than ``MAX_CODE`` characters
    is taken on trust.
    """
    if len(code) > MAX_CODE:
        return None
    if language == "python":
        fault = _python_fault(code)
    elif language == "json":
        fault = _json_fault(code)
    else:
        fault = _sql_fault(code, dialect)
    return None if fault is None else f"not {_NAMES[language]}: {fault}"


def blocks(text: str, language: Language) -> list[str]:
    """The fenced blocks of a text that are marked as ``language``, or not marked at all."""
    found = _fenced(text) if "```" in text else ()
    return [code for tag, code in found if not tag or _tagged(tag)[0] == language]


def broken_block(text: str) -> str | None:
    """What is wrong with the first fenced block that does not parse as what it is marked as."""
    if "```" not in text:
        return None
    for tag, block in islice(_fenced(text), MAX_BLOCKS):
        language, dialect = _tagged(tag)
        if language is None:
            continue
        code = textwrap.dedent(block)
        if language == "python" and code.lstrip().startswith(">>>"):
            continue  # a session, with prompts and output
        fault = syntax_fault(code, language, dialect)
        if fault is not None:
            return f"a code block is {fault}"
    return None


def _fenced(text: str) -> Iterator[tuple[str, str]]:
    """The words after each opening fence, and what stands between it and the closing one."""
    tag: str | None = None
    block: list[str] = []
    for line in text.split("\n"):
        fence = _FENCE.match(line)
        if tag is None:
            tag, block = (fence[1] if fence else None), []
        elif fence and not line.strip(" \t\r`"):
            yield tag, "\n".join(block)
            tag = None
        else:
            block.append(line)


def _tagged(tag: str) -> tuple[Language | None, str | None]:
    return _TAGS.get(tag.casefold(), (None, None))


def _python_fault(code: str) -> str | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes in what somebody else wrote
            tree = ast.parse(code)
    except SyntaxError as error:
        return f"line {error.lineno}: {error.msg}"
    except (ValueError, RecursionError, MemoryError) as error:
        return str(error) or "nested too deeply"
    return None if tree.body else "it holds no statement"


def _json_fault(code: str) -> str | None:
    try:
        json.loads(code, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        return str(error)
    return None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _sql_fault(code: str, dialect: str | None) -> str | None:
    sqlglot = _sqlglot()
    try:
        statements = [tree for tree in sqlglot.parse(code, dialect=dialect) if tree is not None]
    except sqlglot.errors.SqlglotError as error:
        return str(error).split("\n", 1)[0].split(" <Token", 1)[0]
    except RecursionError:
        return "nested too deeply"
    if not statements:
        return "it holds no statement"
    return next((fault for fault in map(_sql_statement_fault, statements) if fault), None)


def _sql_statement_fault(tree: Any) -> str | None:
    """What the parser lets pass: a bare expression (any two words are one), and empty lists."""
    exp = _sqlglot().exp
    if isinstance(tree, exp.Condition | exp.Alias | exp.Tuple | exp.Star | exp.Interval):
        return "an expression is no statement"
    if isinstance(tree, exp.Select | exp.Update) and not tree.expressions:
        return "a list is empty"
    return None


@cache
def _sqlglot() -> Any:
    # Loaded by who needs it: it takes a tenth of a second.
    import sqlglot

    # It tells of each statement that it knows by its first word alone.
    logging.getLogger("sqlglot").setLevel(logging.ERROR)
    return sqlglot
