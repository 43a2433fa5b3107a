"""The page of every setting: names, types, defaults, meanings, read from the models' own code."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from cli.reference_types import shown_default, shown_type
from config.catalog import Catalog
from config.flower import LOGIN
from config.gateway import KEY_VARIABLE, KeysFile
from config.settings import Settings

HEAD = """# Settings

```sh
make reference     # writes this page and the next anew, from the code
```

Generated: change the code, not this page. What settings are for:
[configuration.md](../configuration.md); commands: [commands.md](commands.md).

Settings come from arguments, then from the environment, then from `uptier.toml` in the current
directory (or the file that `UPTIER_CONFIG` names), where they have the names of the second column.
"""
OTHERS = {
    "UPTIER_CONFIG": "The file of settings, instead of `uptier.toml` in the current directory.",
    KEY_VARIABLE: "A single key of the gateway, for those who need no file of keys.",
    f"{KEY_VARIABLE}_FILE": "A file that holds it, with mode 600.",
    LOGIN: "The login that Flower asks for, as `user:password`.",
    f"{LOGIN}_FILE": "A file that holds it, with mode 600.",
    "UPTIER_THREADS": "CPU threads of a worker's model, instead of its lane's `threads`.",
    "UPTIER_WORKER_NAME": "The name of a worker, where two serve one lane on one machine.",
}
"""Variables that are no settings: they concern one process."""
INTERNAL = frozenset({"UPTIER_OWN_CORES", "UPTIER_PARENT_PIPE", "UPTIER_WORKER_TOKEN"})
"""Variables that a stack sets for its own workers."""


def settings_page() -> str:
    """The whole page."""
    parts = [HEAD, _settings(), _others(), "## Profiles\n", _profiles(), "## Keys of the gateway\n"]
    parts += [_section(KeysFile, "keys file"), *(_section(m, m.__name__) for m in _below(KeysFile))]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def untold(model: type[BaseModel]) -> list[str]:
    """The fields of a model and of those below it that say nothing of themselves."""
    return [
        f"{each.__name__}.{name}"
        for each in (model, *_below(model))
        for name, field in each.model_fields.items()
        if not _meaning(each, name, field)
    ]


def _settings() -> str:
    rows = [("variable", "in `uptier.toml`", "type", "default", "meaning")]
    for name, field in Settings.model_fields.items():
        kind = shown_type(field.annotation, field.metadata)
        default = shown_default(field)
        if name in ("data_dir", "models_dir"):
            default = "the user's " + ("data" if name == "data_dir" else "cache") + " directory"
        row = (f"`UPTIER_{name.upper()}`", f"`{name}`", kind, default)
        rows.append((*row, _meaning(Settings, name, field)))
    return _table(rows)


def _others() -> str:
    keys = (
        "Keys of providers have the providers' own names, as `ANTHROPIC_API_KEY`; each may stand "
        "in a file of its own that `..._FILE` names, as `ANTHROPIC_API_KEY_FILE`.\n"
    )
    rows = [("variable", "meaning"), *((f"`{n}`", text) for n, text in OTHERS.items())]
    return f"Variables that are no settings:\n\n{_table(rows)}\n{keys}"


def _profiles() -> str:
    lead = (
        "The keys of a profile's TOML file. `include` names files of `config/kinds` and "
        "`config/specialities`, which are laid under it.\n"
    )
    sections = [_section(Catalog, "the top of the file")]
    sections += [_section(model, model.__name__) for model in _below(Catalog)]
    return "\n".join([lead, *sections])


def _section(model: type[BaseModel], title: str) -> str:
    told = inspect.cleandoc(model.__doc__ or "").replace("``", "`")
    rows = [("key", "type", "default", "meaning")]
    for name, field in model.model_fields.items():
        kind = shown_type(field.annotation, field.metadata)
        rows.append((f"`{name}`", kind, shown_default(field), _meaning(model, name, field)))
    places = ", ".join(f"`{place}`" for place in _places().get(model, ()))
    where = f"In {places}. " if places else ""
    return f"### {title}\n\n{where}{told}\n\n{_table(rows)}"


@cache
def _places() -> dict[type[BaseModel], list[str]]:
    """Where each model stands in a profile: ``[lanes.NAME]`` and its like."""
    found: dict[type[BaseModel], list[str]] = {}

    def walk(model: type[BaseModel], place: str) -> None:
        for name, field in model.model_fields.items():
            for inner, named in _models_in(field.annotation):
                here = f"{place}.{name}".lstrip(".") + (".NAME" if named else "")
                if f"[{here}]" not in found.setdefault(inner, []):
                    found[inner].append(f"[{here}]")
                    walk(inner, here)

    walk(Catalog, "")
    walk(KeysFile, "")
    return found


@cache
def _below(model: type[BaseModel]) -> tuple[type[BaseModel], ...]:
    """The models that stand within a model, each once, in the order of the code."""
    found: dict[type[BaseModel], None] = {}
    for field in model.model_fields.values():
        for inner, _ in _models_in(field.annotation):
            found |= dict.fromkeys((inner, *_below(inner)))
    return tuple(found)


def _models_in(annotation: Any, named: bool = False) -> Iterator[tuple[type[BaseModel], bool]]:
    """The models of an annotation, and whether they stand under names of one's own."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, named
    for inner in get_args(annotation):
        yield from _models_in(inner, named or get_origin(annotation) is dict)


def _meaning(model: type[BaseModel], name: str, field: FieldInfo) -> str:
    text = " ".join(part for part in (field.description, _docstrings(model).get(name)) if part)
    told = " ".join(text.replace("``", "`").split())
    return told[:1].upper() + told[1:]


@cache
def _docstrings(model: type[BaseModel]) -> dict[str, str]:
    """The strings that follow the fields of a class and of the classes that it comes from."""
    found: dict[str, str] = {}
    for each in reversed(model.__mro__):
        if not each.__module__.startswith("config."):
            continue
        tree = ast.parse(textwrap.dedent(inspect.getsource(each))).body[0]
        assert isinstance(tree, ast.ClassDef)
        for field, after in zip(tree.body, tree.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                told = after.value if isinstance(after, ast.Expr) else None
                if isinstance(told, ast.Constant) and isinstance(told.value, str):
                    found[field.target.id] = told.value
    return found


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    head, *others = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in rows]
    rule = "|".join("---" for _ in rows[0])
    return "\n".join([f"| {head} |", f"|{rule}|", *(f"| {line} |" for line in others)]) + "\n"
