"""docker-compose.yml and the Dockerfile, read as tests need them: no container engine is asked."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "Dockerfile"
VARIABLE = re.compile(r"\$(\$|\{(?P<name>\w+)(?::-(?P<default>[^}]*))?\})")
INSTRUCTION = re.compile(r"^([A-Z]+)\s+(.*)$")


def variables() -> dict[str, str]:
    """The variables of docker-compose.yml, each with its default."""
    text = "\n".join(li for li in COMPOSE.read_text().splitlines() if not li.startswith("#"))
    found = (match for match in VARIABLE.finditer(text) if match["name"])
    return {match["name"]: match["default"] or "" for match in found}


def services(given: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The services, interpolated with the defaults and what is ``given``."""
    return dict(_read(given or {})["services"])


def secrets() -> dict[str, Any]:
    """The secrets at the end of the file."""
    return dict(_read({})["secrets"])


def _read(given: Mapping[str, str]) -> dict[str, Any]:
    return dict(_filled(yaml.safe_load(COMPOSE.read_text()), given))


def _filled(value: Any, given: Mapping[str, str]) -> Any:
    """Interpolated as Compose does it: values alone, after the file is parsed."""
    if isinstance(value, dict):
        return {key: _filled(each, given) for key, each in value.items()}
    if isinstance(value, list):
        return [_filled(each, given) for each in value]
    if not isinstance(value, str):
        return value
    return VARIABLE.sub(
        lambda m: given.get(m["name"], m["default"] or "") if m["name"] else "$", value
    )


def seconds(period: str) -> float:
    """A period such as ``1m30s``."""
    units = {"h": 3600.0, "m": 60.0, "s": 1.0}
    return sum(float(n) * units[unit] for n, unit in re.findall(r"(\d+)([hms])", period))


def command_of(check: list[str]) -> list[str]:
    """A health check as the engine runs it."""
    return check[1:] if check[0] == "CMD" else ["/bin/sh", "-c", check[1]]


def stages() -> dict[str, list[tuple[str, str]]]:
    """The instructions of the Dockerfile by stage; those before the first stage under ''."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found: dict[str, list[tuple[str, str]]] = {"": []}
    stage = ""
    for line in text.splitlines():
        parts = INSTRUCTION.match(line)
        if parts is None:
            continue
        if parts[1] == "FROM":
            stage = parts[2].rpartition(" AS ")[2]
            found[stage] = []
        found[stage].append((parts[1], " ".join(parts[2].split())))
    return found


def image_environment() -> dict[str, str]:
    """What the image itself sets."""
    lines = [rest for name, rest in stages()["image"] if name == "ENV"]
    return dict(each.split("=", 1) for line in lines for each in shlex.split(line))


def own_services() -> dict[str, Any]:
    """The services that run Uptier's own image."""
    prefix = variables()["UPTIER_IMAGE"] + ":"
    return {n: s for n, s in services().items() if s["image"].startswith(prefix)}


def tool(name: str) -> str | None:
    """A program of this environment, or of the system."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else shutil.which(name)
