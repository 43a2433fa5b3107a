"""A directory that nothing gets out of: names are resolved, held to the root, and opened step by
step without following links, so that a link that appears meanwhile leads nowhere either."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from config.errors import InputError

MAX_PATH_CHARS = 400
MAX_DEPTH = 20
HIDDEN = frozenset({".git"})
"""Never read and never written: git's own files run commands."""
SKIPPED = frozenset({
    "__pycache__", "node_modules", ".venv", "venv", ".mypy_cache", ".ruff_cache", ".pytest_cache",
    ".tox", ".hg", ".svn",
})  # fmt: skip
"""Left out of lists; what is in them was made by programs."""
NO_LINK = os.O_NOFOLLOW | os.O_CLOEXEC
FOLDER = os.O_RDONLY | os.O_DIRECTORY | NO_LINK
WHOLE = 0o777


class Refused(Exception):
    """An action cannot be done, or may not be; the text says why and is shown to the model."""


@dataclass(frozen=True)
class Found:
    """A file of the directory: its path below the root with ``/`` between names, its bytes, and
    when it was last changed, in microseconds since 1970."""

    path: str
    size: int
    changed_at: int


class Directory:
    """The working directory of a daemon.

    A path is one below the root: relative, without ``..``, and not of ``.git``. Links are followed
    only where they lead to something below the root.
    """

    def __init__(self, root: Path, *, file_bytes: int, files: int) -> None:
        """Raises: InputError: there is no such directory, or it cannot be read."""
        self.root = existing(root)
        self._file_bytes = file_bytes
        self._files = files

    def locate(self, path: str) -> tuple[str, ...]:
        """The names that lead from the root to what a path means, links resolved.

        Raises:
            Refused: it leads out of the directory or into ``.git``, or is no usable path.
        """
        names = _names(path)
        try:
            real = self.root.joinpath(*names).resolve()
        except (OSError, RuntimeError, ValueError):  # a loop of links, or a name too long
            raise Refused(f"path {path[:80]!r} cannot be resolved") from None
        if not real.is_relative_to(self.root):
            raise Refused(f"path {path[:80]!r} leads out of the working directory")
        inner = real.relative_to(self.root).parts
        if _is_hidden(inner):
            raise Refused(f"path {path[:80]!r} is git's own: use the git actions")
        return inner

    def read(self, path: str) -> bytes:
        """The content of a regular file.

        Raises:
            Refused: as :meth:`locate`; or it is not there, no file, or larger than the bound.
        """
        names = self.locate(path)
        with self._opened(names[:-1], path) as folder:
            descriptor = _open(names[-1:], path, folder)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise Refused(f"{path} is not a file: list the files")
            if status.st_size > self._file_bytes:
                raise Refused(
                    f"{path} has {status.st_size} bytes, more than the {self._file_bytes} that "
                    "are read: choose another file"
                )
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return file.read(self._file_bytes)
        finally:
            os.close(descriptor)

    def text(self, path: str) -> str:
        """The content of a text file.

        Raises:
            Refused: as :meth:`read`, or it is binary.
        """
        data = self.read(path)
        if b"\0" in data:
            raise Refused(f"{path} is binary: choose a text file")
        return data.decode("utf-8", "replace")

    def exists(self, path: str) -> bool:
        """Whether there is a file of that path.

        Raises:
            Refused: as :meth:`locate`.
        """
        return self.root.joinpath(*self.locate(path)).is_file()

    def write(self, path: str, text: str) -> None:
        """Put ``text`` into a file, the whole of it or nothing; folders on the way are made.

        Raises:
            Refused: as :meth:`locate`; or it is too long, or there is something that is no file.
        """
        data = text.encode("utf-8", "replace")
        if len(data) > self._file_bytes:
            raise Refused(f"{len(data)} bytes are more than the {self._file_bytes} of a file")
        names = self.locate(path)
        if not names:
            raise Refused(f"{path} is a directory: name a file in it")
        with self._opened(names[:-1], path, make=True) as folder:
            _replace(names[-1], data, folder, path)

    def files(self, below: str = ".") -> list[Found]:
        """Regular files below a folder in the order of their names, up to the bound.

        Raises:
            Refused: as :meth:`locate`, or it is no folder.
        """
        names = self.locate(below)
        start = self.root.joinpath(*names)
        if not start.is_dir():
            raise Refused(f"{below} is not a folder: list the files of another one")
        found: list[Found] = []
        with self._opened(names, below) as folder:
            for one in self._walk(folder, names):
                found.append(one)
                if len(found) >= self._files:
                    break
        return found

    def folders(self, files: list[Found]) -> dict[str, int]:
        """The folders that these files are in, ``.`` first, with when a name in them last came or
        went, in microseconds since 1970."""
        inner = {str(Path(one.path).parent) for one in files}
        return {name: self._changed_at(name) for name in (".", *sorted(inner - {"."}))}

    def _changed_at(self, folder: str) -> int:
        with suppress(OSError):
            return self.root.joinpath(folder).stat().st_mtime_ns // 1_000
        return 0

    def _walk(self, folder: int, names: tuple[str, ...]) -> Iterator[Found]:
        """What lies below an open folder, which ``names`` lead to."""
        if len(names) > MAX_DEPTH:
            return
        try:
            with os.scandir(folder) as entries:
                here = sorted(entries, key=lambda entry: entry.name)
        except OSError:  # it went away, or is not to be read
            return
        for entry in here:
            if not entry.name.isprintable():
                continue  # line breaks, or bytes that are no UTF-8: no prompt can name it
            inner = (*names, entry.name)
            with suppress(OSError):
                if entry.is_file(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    yield Found("/".join(inner), status.st_size, status.st_mtime_ns // 1_000)
                elif entry.is_dir(follow_symlinks=False) and not _is_skipped(entry.name):
                    deeper = os.open(entry.name, FOLDER, dir_fd=folder)
                    try:
                        yield from self._walk(deeper, inner)
                    finally:
                        os.close(deeper)

    @contextmanager
    def _opened(self, names: tuple[str, ...], path: str, *, make: bool = False) -> Iterator[int]:
        """A descriptor of the folder at ``names``, each opened from the one before it."""
        try:
            current = os.open(self.root, FOLDER)
        except OSError as error:
            raise Refused(f"the working directory cannot be opened: {error.strerror}") from None
        try:
            for name in names:
                inner = _open_folder(name, current, path, make=make)
                os.close(current)
                current = inner
            yield current
        finally:
            os.close(current)


def existing(root: Path) -> Path:
    """The real path of a directory.

    Raises:
        InputError: there is none, or it cannot be entered.
    """
    if not root.exists():
        raise InputError(f"--workdir {root} is not there: make it, or name another")
    if not root.is_dir():
        raise InputError(f"--workdir {root} is not a directory: name one")
    if not os.access(root, os.R_OK | os.X_OK):
        raise InputError(f"--workdir {root} cannot be read: change its mode, or name another")
    return root.resolve()


def fingerprint(content: bytes | None) -> str:
    """The sha256 of a file's content; of one that is not there, ``absent``."""
    return "absent" if content is None else hashlib.sha256(content).hexdigest()


def _names(path: str) -> tuple[str, ...]:
    if not path.strip() or len(path) > MAX_PATH_CHARS or not path.isprintable():
        raise Refused(f"path {path[:80]!r} is empty, too long or unprintable")
    if path.startswith(("/", "~")) or "\\" in path or (len(path) > 1 and path[1] == ":"):
        raise Refused(f"path {path[:80]!r} is absolute: name it from the working directory")
    names = tuple(name for name in path.split("/") if name not in ("", "."))
    if ".." in names:
        raise Refused(f"path {path[:80]!r} goes up with ..: stay in the working directory")
    if _is_hidden(names):
        raise Refused(f"path {path[:80]!r} is git's own: use the git actions")
    return names


def _is_hidden(names: tuple[str, ...]) -> bool:
    return any(name.casefold().rstrip(". ") in HIDDEN for name in names)


def _is_skipped(name: str) -> bool:
    return name in SKIPPED or _is_hidden((name,))


def _open(names: tuple[str, ...], path: str, folder: int) -> int:
    if not names:
        raise Refused(f"{path} is a directory: name a file in it")
    try:
        # Without waiting: a pipe would block until somebody writes into it.
        return os.open(names[0], os.O_RDONLY | os.O_NONBLOCK | NO_LINK, dir_fd=folder)
    except OSError as error:
        raise Refused(_why(path, error)) from None


def _open_folder(name: str, folder: int, path: str, *, make: bool) -> int:
    try:
        if make:
            with suppress(FileExistsError):
                os.mkdir(name, dir_fd=folder)
        return os.open(name, FOLDER, dir_fd=folder)
    except OSError as error:
        raise Refused(_why(path, error)) from None


def _replace(name: str, data: bytes, folder: int, path: str) -> None:
    """A new file in the place of the old one: no reader sees half of it."""
    mode = _mode(name, folder, path)
    temporary = f".{secrets.token_hex(8)}.part"
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_LINK
        with os.fdopen(os.open(temporary, flags, 0o600, dir_fd=folder), "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)
    except OSError as error:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise Refused(_why(path, error)) from None


def _mode(name: str, folder: int, path: str) -> int:
    """The mode of the file that is replaced, or that of a new one."""
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return 0o644
    except OSError as error:
        raise Refused(_why(path, error)) from None
    if not stat.S_ISREG(status.st_mode):
        raise Refused(f"{path} is there and is not a file: choose another name")
    return stat.S_IMODE(status.st_mode) & WHOLE


def _why(path: str, error: OSError) -> str:
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return f"{path} is not below the working directory, or not a file"
    if error.errno == errno.ENOENT:
        return f"{path} is not there: list the files"
    return f"{path} cannot be used: {error.strerror}"
