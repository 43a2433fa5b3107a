"""Fetches weights from the model hub, going on where an interrupted download stopped."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config.catalog import HubSource
from config.errors import WeightsError

Advance = Callable[[int], None]
RESUMABLE = ".incomplete"


@dataclass(frozen=True)
class Remote:
    """A file as the hub has it now; ``etag`` changes with its content, ``size`` is in bytes."""

    url: str
    etag: str
    size: int | None

    @property
    def sha256(self) -> str | None:
        """The hash the hub keeps; small files, which it does not store by hash, have none."""
        return self.etag if re.fullmatch(r"[0-9a-f]{64}", self.etag) else None


def look(source: HubSource, file: str) -> Remote:
    """What the hub says of a file.

    Raises:
        WeightsError: the hub cannot be reached, refuses, or has no such file.
    """
    hub = _client()
    try:
        url = hub.hf_hub_url(source.repo, file, revision=source.revision)
        found = hub.get_hf_file_metadata(url)
    except Exception as error:  # its many layers each raise their own
        raise _refused(source, file, error) from None
    if not found.etag or not re.fullmatch(r"[A-Za-z0-9._-]+", found.etag):
        raise _refused(source, file, ValueError(f"its answer has no usable ETag: {found.etag!r}"))
    return Remote(url=url, etag=found.etag, size=found.size)


def fetch(source: HubSource, file: str, directory: Path, advance: Advance) -> Path:
    """Downloads a file into ``directory``; what is already there is not fetched again.

    The client's own ``hf_hub_download`` starts anew in every process since its release 2, so
    the range is asked for here. ``advance`` is told the bytes that are there so far.

    Raises:
        WeightsError: as for :func:`look`.
        OSError: ``directory`` cannot be written.
    """
    remote = look(source, file)
    path = directory / f"{remote.etag}{RESUMABLE}"
    for stale in directory.glob(f"*{RESUMABLE}"):
        if stale != path:  # of another content
            stale.unlink()
    with path.open("ab") as target:
        try:
            _get(remote, target, target.tell(), advance)
        except Exception as error:  # as above
            raise _refused(source, file, error) from None
    return path


def _get(remote: Remote, target: Any, start: int, advance: Advance) -> None:
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    http_get(
        remote.url,
        target,
        resume_size=start,
        headers=build_hf_headers(),
        expected_size=remote.size,
        tqdm_class=_reporting(advance),
    )


def _client() -> Any:
    """The hub's client, imported where it is needed, and silent about each of its retries."""
    import huggingface_hub
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    return huggingface_hub


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
