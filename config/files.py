"""Files that are there as a whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from config.errors import InputError


@contextmanager
def written_whole(path: Path, option: str = "") -> Iterator[Path]:
    """A path beside ``path`` to write to, which takes its place at the end; if that is not reached,
    nothing is left. ``option`` is what named it, for the error.

    Raises:
        InputError: it cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.part")
    try:
        yield unfinished
        unfinished.replace(path)
    except BrokenPipeError:
        raise  # whoever reads elsewhere has left; the file is not at fault
    except OSError as error:
        named = f"{option} {path}".strip()
        raise InputError(
            f"{named} cannot be written: {error.strerror or error}; name another file"
        ) from None
    finally:
        unfinished.unlink(missing_ok=True)
