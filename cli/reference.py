"""``python -m cli.reference``: the pages of docs/reference, written anew from the code.

With ``--check`` nothing is written; exit 1 says that a page is not what the code would make it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from cli.reference_commands import commands_page
from cli.reference_settings import settings_page
from config.files import written_whole

FOLDER = Path(__file__).parent.parent / "docs" / "reference"


def pages() -> dict[str, str]:
    """Every page, by the name of its file."""
    return {"settings.md": settings_page(), "commands.md": commands_page()}


def stale() -> list[str]:
    """The pages that are missing or not as the code makes them."""
    return [
        name
        for name, text in pages().items()
        if not (FOLDER / name).is_file() or (FOLDER / name).read_text(encoding="utf-8") != text
    ]


def main(arguments: list[str]) -> int:
    """Write the pages, or check them."""
    if arguments == ["--check"]:
        found = stale()
        for name in found:
            print(f"{FOLDER / name} is not as the code makes it: run `make reference`")
        return 1 if found else 0
    if arguments:
        print("usage: python -m cli.reference [--check]", file=sys.stderr)
        return 2
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        with written_whole(FOLDER / name) as unfinished:
            unfinished.write_text(text, encoding="utf-8")
        print(FOLDER / name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
