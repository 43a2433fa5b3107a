"""Finds the fastest format of each local model that keeps its answers, once per machine."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from config.catalog import BackendName
from config.errors import ConfigurationError, InputError, WeightsError
from config.settings import Settings
from workers.choices import (
    ORIGINAL,
    PREPARED,
    Candidate,
    Choice,
    files_in_use,
    physical_cores,
    remember,
    remembered,
)
from workers.faithful import candidate, choose
from workers.isolated import MeasureError, MeasureTimeout, in_child
from workers.measure import (
    Measurement,
    supports_gpu,
)
from workers.measure import measure as measure_file
from workers.measure import quantize as quantize_file
from workers.models import original_path, select, verified_sha256, weights_of
from workers.progress import Report, Step, quiet
from workers.verified import sha256_of

STEP_LIMIT_S = 240.0  # for one conversion or one measurement; a slower format is passed over
FULL_PRECISION = frozenset({"F32", "F16", "BF16"})
FULL_PRECISION_LIMIT = 1.0e9  # parameters; above, two bytes each cost more than they gain
FORMAT = r"[A-Z0-9_]{1,16}"
QUIET = 0.9  # least share of the cores' time for a measurement to be trusted


@dataclass(frozen=True)
class Tools:
    """What reaches llama.cpp; a test puts its own in their place."""

    quantize: Callable[[Path, Path, str], None]
    measure: Callable[[Path], Measurement]
    supports_gpu: Callable[[], bool]


@dataclass(frozen=True)
class Prepared:
    """The choice for a model; ``measured`` is False if it was remembered."""

    name: str
    choice: Choice
    measured: bool

    @property
    def disturbed(self) -> bool:
        """Whether other work on the machine makes the figures doubtful."""
        return any(c.share < QUIET for c in self.choice.candidates if c.fault is None)


def llama_tools() -> Tools:
    """llama.cpp in child processes, on all physical cores, each call bounded in time."""
    cores = physical_cores()
    return Tools(
        quantize=lambda source, target, name: in_child(
            STEP_LIMIT_S, quantize_file, source, target, name, cores
        ),
        measure=lambda path: in_child(STEP_LIMIT_S, measure_file, path, cores),
        supports_gpu=lambda: in_child(STEP_LIMIT_S, supports_gpu),
    )


def prepare(
    settings: Settings,
    names: Sequence[str] = (),
    *,
    again: bool = False,
    report: Report = quiet,
    tools: Tools | None = None,
) -> list[Prepared]:
    """Chooses a format for the named models, or those that the lanes use.

    What was chosen before on this machine stands, unless the weights or the catalog's formats
    changed, the chosen file is gone, or ``again`` is set.

    Raises:
        InputError: a name is not in the profile, or has no weights for llama.cpp.
        WeightsError: weights are missing or wrong, or llama.cpp cannot run them.
    """
    chosen = [name for name in select(settings, names) if _is_llama(settings, name)]
    for name in names:
        if name not in chosen:
            raise InputError(f"model {name!r} is not served by llama.cpp: nothing to prepare")
    directory = settings.models_dir / PREPARED
    return [
        _Preparation(settings, name, directory, report, tools or llama_tools()).run(again=again)
        for name in chosen
    ]


def _is_llama(settings: Settings, name: str) -> bool:
    return settings.catalog.models[name].backend is BackendName.LLAMA_CPP


def _format_names(settings: Settings, name: str) -> tuple[str, ...]:
    """The catalog's formats, which become parts of file names."""
    formats = weights_of(settings, name).formats
    for given in formats:
        if not re.fullmatch(FORMAT, given):
            raise ConfigurationError(
                f"models.{name}.weights.formats: {given!r} is no format of llama.cpp: write one "
                "such as BF16 or Q8_0"
            )
    return formats


class _Preparation:
    """The work on one model."""

    def __init__(
        self, settings: Settings, name: str, directory: Path, report: Report, tools: Tools
    ) -> None:
        self._settings = settings
        self._name = name
        self._directory = directory
        self._report = report
        self._tools = tools
        self._formats = _format_names(settings, name)
        self._source = original_path(settings, name)
        self._sha256 = verified_sha256(settings, name)
        self._total = 1 + 2 * len(self._formats)

    def run(self, *, again: bool) -> Prepared:
        """The choice that stands, or a new one."""
        found = self._standing()
        if found is not None and not again:
            return Prepared(self._name, found, measured=False)
        try:
            with self._alone():
                # Another prepare may have chosen while this one waited.
                found = self._standing()
                if found is not None and not again:
                    return Prepared(self._name, found, measured=False)
                choice = self._choose()
        except OSError as error:
            raise WeightsError(
                f"formats of {self._name} cannot be written under {self._directory}: "
                f"{error.strerror or error}; free the space or set UPTIER_MODELS_DIR"
            ) from None
        self._say(self._total, f"chose {choice.format}")
        return Prepared(self._name, choice, measured=True)

    def _standing(self) -> Choice | None:
        found = remembered(self._settings.models_dir, self._name, self._sha256)
        if found is None or found.asked != self._formats:
            return None
        if found.file is None or self._is_whole(found.file, found.sha256):
            return found
        return None

    def _is_whole(self, file: str, sha256: str | None) -> bool:
        try:
            return sha256_of(self._settings.models_dir, self._directory / file) == sha256
        except OSError:
            return False

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One measurement at a time: two would slow each other down and mislead both."""
        self._directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._directory / ".prepare.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            self._say(0, "waiting for another prepare")
            lock.acquire()
        try:
            for stale in self._directory.glob("*.tmp"):
                stale.unlink(missing_ok=True)
            yield
        finally:
            lock.release()

    def _choose(self) -> Choice:
        model = self._settings.catalog.models[self._name]
        if not self._formats:
            return self._remember(Choice(reason="the catalog names no formats to measure"))
        try:
            if model.gpu_layers != 0 and self._tools.supports_gpu():
                reason = "llama.cpp runs this model on a GPU, as it comes"
                return self._remember(Choice(asked=self._formats, reason=reason))
            self._say(0, "measuring the file as it comes")
            original = self._tools.measure(self._source)
        except MeasureTimeout as error:
            # Not remembered: a quieter machine may do better.
            return Choice(asked=self._formats, reason=f"measuring the file as it comes {error}")
        except MeasureError as error:
            raise WeightsError(
                f"weights of {self._name} at {self._source} do not run: {error}; pull them again "
                "or build llama-cpp-python anew (docs/models.md)"
            ) from None
        candidates = [candidate(ORIGINAL, original, original.log_probs)]
        for number, name in enumerate(self._formats):
            candidates.append(self._try(name, original, 1 + 2 * number))
        return self._remember(self._chosen(candidates))

    def _remember(self, choice: Choice) -> Choice:
        remember(self._settings.models_dir, self._name, self._sha256, choice)
        # What no machine chose; others may share this directory.
        used = files_in_use(self._settings.models_dir)
        own = re.compile(re.escape(self._name) + rf"\.{FORMAT}\.gguf")
        for path in self._directory.iterdir():
            if own.fullmatch(path.name) and path.name not in used:
                path.unlink(missing_ok=True)
        return choice

    def _try(self, name: str, original: Measurement, step: int) -> Candidate:
        if name == original.format:
            return Candidate(format=name, fault="is the format it comes in")
        if name in FULL_PRECISION and original.parameters > FULL_PRECISION_LIMIT:
            return Candidate(format=name, fault="too large for a model of this size")
        temporary = self._path(name).with_suffix(".tmp")
        try:
            self._say(step, f"converting to {name}")
            self._tools.quantize(self._source, temporary, name)
            self._say(step + 1, f"measuring {name}")
            found = candidate(name, self._tools.measure(temporary), original.log_probs)
            if found.faithful:
                os.replace(temporary, self._path(name))
        except MeasureError as error:
            return Candidate(format=name, fault=str(error))
        finally:
            temporary.unlink(missing_ok=True)
        return found

    def _chosen(self, candidates: list[Candidate]) -> Choice:
        name = choose(candidates)
        if name == ORIGINAL:
            reason = "no faithful format is over 5 % faster"
            return Choice(asked=self._formats, candidates=tuple(candidates), reason=reason)
        path = self._path(name)
        return Choice(
            format=name,
            file=path.name,
            sha256=sha256_of(self._settings.models_dir, path),
            asked=self._formats,
            candidates=tuple(candidates),
            reason="the fastest faithful format",
        )

    def _path(self, format_name: str) -> Path:
        return self._directory / f"{self._name}.{format_name}.gguf"

    def _say(self, done: int, note: str) -> None:
        self._report(Step(self._name, done, self._total, note))
