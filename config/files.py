"""Files that are there as a whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from config.errors import InputError


@contextmanager
def written_whole(path: Path, option: str = "") -> Iterator[Path]:
    """A path beside ``path`` to write to, which takes its place at the end; if that is not reached,
    nothing is left. ``option`` is what named it, for the error. A link stays, and its target is
    written.

    Raises:
        InputError: it cannot be written.
    """
    named = f"{option} {path}".strip()
    whole = Path(os.path.realpath(path))
    if os.path.exists(whole) and not os.path.isfile(whole):
        raise InputError(f"{named} cannot be written: it is no file; name another file")
    unfinished = whole.with_name(f".{whole.name}.part")
    try:
        yield unfinished
        unfinished.replace(whole)
    except BrokenPipeError:
        raise  # whoever reads elsewhere has left; the file is not at fault
    except OSError as error:
        raise InputError(
            f"{named} cannot be written: {error.strerror or error}; name another file"
        ) from None
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
