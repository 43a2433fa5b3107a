"""What a kind asks of its answers beyond their output: a language, fields, facts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from config.weights import Strict

Language = Literal["python", "sql", "json"]
Dialect = Literal[
    "bigquery", "clickhouse", "duckdb", "mysql", "oracle", "postgres", "snowflake", "sqlite", "tsql"
]
FieldName = Annotated[str, Field(pattern=r"^\w[\w -]{0,63}$")]


class Demands(Strict):
    """Checks of the quality check that only some kinds want; all are off by default."""

    language: Language | None = None
    """A text answer is code in this language, and nothing else."""
    dialect: Dialect | None = None
    """Of SQL; absent: whatever most databases understand."""
    required_fields: tuple[FieldName, ...] = ()
    """Names that a text gives in lines ``NAME: value``, or JSON as keys, each with a value."""
    grounded: bool = False
    """Numbers, names and identifiers of the answer must occur in the prompt."""


def demands_fault(demands: Demands, output: str | None) -> str | None:
    """What does not go together in a kind's demands, with the mend, or ``None``."""
    if demands.language is not None and output not in (None, "text"):
        return f"language {demands.language!r} is for kinds of text: drop it"
    if demands.dialect is not None and demands.language != "sql":
        return f'dialect {demands.dialect!r} is for language = "sql": set that or drop it'
    if demands.language is not None and demands.required_fields:
        return f"required_fields are no {demands.language}: drop them or the language"
    if output == "choice" and (demands.required_fields or demands.grounded):
        return "required_fields and grounded are for text and JSON: drop them"
    return None
