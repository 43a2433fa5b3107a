"""What a project declares to depend on, and which modules it imports without declaring them."""

from __future__ import annotations

import ast
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from producers.swarm.sandbox import Directory, Refused

MOST_NAMED = 20
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*")
_EXACT = re.compile(r"==\s*[^*,]+$|\s\d[\w.+-]*$")


def dependencies(directory: Directory) -> str:
    """A line for each declaration, and one for what is imported and is neither declared, part of
    Python, nor a module of the directory. Distributions are taken to be called as their modules.
    """
    paths = [one.path for one in directory.files()]
    declared: dict[str, str] = {}
    for path in paths:
        for requirement in _declared(directory, path):
            name = _NAME.match(requirement)
            if name is not None:
                declared[_plain(name.group())] = f"{requirement} ({path})"
    lines = [f"{len(declared)} declared"]
    for known in sorted(declared)[:MOST_NAMED]:
        text = declared[known]
        exact = _EXACT.search(text.rsplit(" (", 1)[0]) is not None
        lines.append(f"{text}: {'exact' if exact else 'not exact'}")
    missing = sorted(_imported(directory, paths) - _local(paths) - set(declared))
    if missing:
        lines.append(f"imported but not declared: {', '.join(missing[:MOST_NAMED])}")
    elif any(path.endswith(".py") for path in paths):
        lines.append("all imports are declared, of this directory or of Python")
    return "\n".join(lines)


def _declared(directory: Directory, path: str) -> Iterator[str]:
    name = PurePosixPath(path).name
    try:
        if name == "pyproject.toml":
            yield from _of_pyproject(tomllib.loads(directory.text(path)))
        elif name.startswith("requirements") and name.endswith(".txt"):
            for line in directory.text(path).splitlines():
                bare = line.split("#", 1)[0].strip()
                if bare and not bare.startswith("-"):
                    yield bare.split(";", 1)[0].strip()
        elif name == "package.json":
            yield from _of_package(json.loads(directory.text(path)))
    except (Refused, ValueError, AttributeError, TypeError, RecursionError):
        return  # not readable, or not of the form that such files have


def _of_pyproject(data: dict[str, Any]) -> Iterator[str]:
    project = data.get("project", {})
    groups = (project.get("optional-dependencies", {}), data.get("dependency-groups", {}))
    listed = [project.get("dependencies", [])]
    listed += [some for group in groups for some in group.values()]
    for requirement in (one for some in listed for one in some if isinstance(one, str)):
        yield requirement.split(";", 1)[0].strip()


def _of_package(data: dict[str, Any]) -> Iterator[str]:
    for part in ("dependencies", "devDependencies"):
        for name, wanted in data.get(part, {}).items():
            yield f"{name.lstrip('@').replace('/', '-')} {wanted}"


def _imported(directory: Directory, paths: list[str]) -> set[str]:
    """Modules that Python files import from outside Python, by their plain names."""
    found: set[str] = set()
    for path in paths:
        if path.endswith(".py"):
            try:
                tree = ast.parse(directory.text(path))
            except (Refused, SyntaxError, ValueError, RecursionError, MemoryError):
                continue
            found |= {name for node in ast.walk(tree) for name in _modules(node)}
    return {_plain(name) for name in found - set(sys.stdlib_module_names)}


def _modules(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name.split(".")[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        yield node.module.split(".")[0]


def _local(paths: list[str]) -> set[str]:
    names: set[str] = set()
    for path in map(PurePosixPath, paths):
        if path.suffix == ".py":
            names |= {_plain(path.stem), *(_plain(part) for part in path.parts[:-1])}
    return names


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).casefold()
