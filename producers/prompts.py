"""Prompt templates: a constant part that agents share, and a state that comes last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from string import Formatter

from pydantic import Field

import config
from config.catalog import Name, Strict
from config.errors import InputError
from config.load import read_toml, validated

PROMPTS = Path(config.__file__).parent / "prompts"


class _TemplateFile(Strict):
    """What a file in ``config/prompts`` holds."""

    version: Name
    system: str = Field(min_length=1)
    state: str = Field(min_length=1)


@dataclass(frozen=True)
class Template:
    """One kind's prompt. ``system`` is never filled in: the same text serves every decision."""

    name: str
    version: str
    system: str
    state: str

    @property
    def id(self) -> str:
        """Name and version, for example ``next_action@1``; answers are cached by it."""
        return f"{self.name}@{self.version}"

    @property
    def fields(self) -> frozenset[str]:
        """The placeholders of the state."""
        return frozenset(name for _, name, _, _ in Formatter().parse(self.state) if name)

    def fill(self, values: Mapping[str, object]) -> str:
        """The state with its placeholders filled in; braces within the values stay as they are.

        Raises:
            InputError: a placeholder has no value.
        """
        try:
            return self.state.format_map(values)
        except KeyError as missing:
            raise InputError(
                f"prompt template {self.id} has no value for {missing}: give one, or take the "
                f"placeholder out of {self.name}.toml"
            ) from None


@lru_cache
def load_template(name: str, directory: Path = PROMPTS) -> Template:
    """The template of that name.

    Raises:
        InputError: there is none of that name.
        ConfigurationError: its file is malformed.
    """
    path = directory / f"{name}.toml"
    if Path(name).name != name or not path.is_file():
        known = ", ".join(sorted(p.stem for p in directory.glob("*.toml")))
        raise InputError(f"prompt template {name!r} is unknown: choose one of {known}")
    read = validated(_TemplateFile, read_toml(path), str(path))
    return Template(name, read.version, read.system.strip(), read.state.strip())
