"""Versions of prompt templates mean something: a text that changes gets a new one.

Cached answers and calibrations are kept by a template's name and version; under an old version
they would be taken for answers to the new text. ``prompt_versions.json`` has what each version
said, as a hash. After a version was raised:
``python -m tests.unit.test_prompt_versions`` writes it anew.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from producers.prompts import PROMPTS, Template, load_template

KEPT = Path(__file__).with_name("prompt_versions.json")
NAMES = sorted(path.stem for path in PROMPTS.glob("*.toml"))


def sha256(template: Template) -> str:
    return hashlib.sha256(f"{template.system}\0{template.state}".encode()).hexdigest()


def current() -> dict[str, dict[str, str]]:
    found = {name: load_template(name) for name in NAMES}
    return {n: {"version": t.version, "sha256": sha256(t)} for n, t in found.items()}


def fault(name: str, kept: dict[str, str] | None, now: dict[str, str]) -> str:
    """What is wrong with a template beside what was kept of it; empty if nothing is."""
    if kept == now:
        return ""
    if kept is not None and kept["version"] == now["version"]:
        return f"{name}: its text changed and version {now['version']!r} did not: raise the version"
    return f"{name}: version {now['version']!r} is new: run python -m {__name__}"


def test_a_text_that_changed_has_a_new_version() -> None:
    kept, now = json.loads(KEPT.read_text()), current()
    faults = [fault(name, kept.get(name), now[name]) for name in NAMES]
    assert not "\n".join(f for f in faults if f)
    assert sorted(kept) == NAMES


def test_the_fault_says_what_to_do() -> None:
    kept = {"version": "1", "sha256": "a"}
    assert fault("x", kept, kept) == ""
    assert "raise the version" in fault("x", kept, {"version": "1", "sha256": "b"})
    assert "is new" in fault("x", kept, {"version": "2", "sha256": "b"})
    assert "is new" in fault("x", None, kept)


@pytest.mark.parametrize("name", NAMES)
def test_the_constant_part_comes_first_and_the_state_last(name: str) -> None:
    template = load_template(name)
    assert template.fields, "a state without values is no state"
    assert not [f for f in template.fields if "{" + f + "}" in template.system]
    lead = template.state.partition("{")[0]
    examples = [line for line in template.system.splitlines() if " Answer: " in line]
    assert all(line.startswith(lead.split()[0]) for line in examples)


if __name__ == "__main__":
    KEPT.write_text(json.dumps(current(), indent=2) + "\n")
