"""Fetches weights from the model hub, which resumes by itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from config.catalog import HubSource
from config.errors import WeightsError

Advance = Callable[[int], None]


def fetch(source: HubSource, file: str, directory: Path, advance: Advance) -> Path:
    """Downloads a file into ``directory``, going on from what is already there.

    ``advance`` is told the bytes that are there so far.

    Raises:
        WeightsError: the hub cannot be reached, refuses, or has no such file.
    """
    import huggingface_hub

    try:
        path = huggingface_hub.hf_hub_download(
            source.repo,
            file,
            revision=source.revision,
            local_dir=directory,
            tqdm_class=_reporting(advance),
        )
    except Exception as error:  # its many clients each raise their own
        raise _refused(source, file, error) from None
    return Path(path)


def sha256(source: HubSource, file: str) -> str | None:
    """The hash that the hub keeps of a file; ``None`` for one too small to be stored by hash.

    Raises:
        WeightsError: as for :func:`fetch`.
    """
    import huggingface_hub

    try:
        found = huggingface_hub.HfApi().get_paths_info(
            source.repo, [file], revision=source.revision
        )
    except Exception as error:  # as above
        raise _refused(source, file, error) from None
    lfs = getattr(found[0], "lfs", None) if found else None
    return None if lfs is None else str(lfs.sha256)


def _refused(source: HubSource, file: str, error: Exception) -> WeightsError:
    cause = str(error).strip() or type(error).__name__
    return WeightsError(
        f"the hub did not give {file} of {source.repo}@{source.revision}: {cause.splitlines()[0]}; "
        "check the name and the network, and set HF_TOKEN where the repository asks for it"
    )


def _reporting(advance: Advance) -> Any:
    """A progress bar as the hub's client wants one, that shows nothing and tells ``advance``."""
    from huggingface_hub.utils.tqdm import tqdm

    bar: Any = tqdm  # its methods have no types

    class Reporting(bar):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._done = int(kwargs.get("initial") or 0)
            super().__init__(*args, **{**kwargs, "disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            self._done += int(n or 0)
            advance(self._done)
            return None

    return Reporting
