"""The integration suite across two hosts: `python -m tests.distributed [PYTEST ARGUMENTS]`.

Broker and PostgreSQL serve on one host; every test that takes a place runs on the other one. After
the whole suite the link between them is cut for 30 s under load. What pytest is given narrows the
suite, and leaves the cut out: `tests/integration/test_batch.py`, `-x`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from tests.distributed.hosts import two_hosts
from tests.distributed.services import services
from tests.integration.places import Absent

ROOT = Path(__file__).parents[2]
SUITE = "tests/integration"
CUT = "tests/integration/test_two_hosts.py"
CUT_S = "30"
PYTEST = (sys.executable, "-m", "pytest")


def main(arguments: Sequence[str]) -> int:
    """Run it; the exit status of pytest, or 2 where two hosts cannot be made."""
    signal.signal(signal.SIGTERM, _end)
    try:
        status = across(arguments)
    except Absent as error:
        print(f"two hosts cannot be made: {error}", file=sys.stderr)
        return 2
    if arguments:
        return status
    longer = os.environ | {"UPTIER_TEST_CUT_S": os.environ.get("UPTIER_TEST_CUT_S", CUT_S)}
    cut = _wait([*PYTEST, CUT], longer)
    return status or cut  # one that a signal ended is negative


def across(arguments: Sequence[str]) -> int:
    """The tests that take a place, on the work host.

    Raises:
        Absent: two hosts cannot be made here.
    """
    named = any(Path(ROOT, word.split("::")[0]).exists() for word in arguments)
    words = [*PYTEST, "-k", "two-hosts", *([] if named else [SUITE]), *arguments]
    with two_hosts() as hosts, services(hosts) as served:
        given = {
            "UPTIER_TEST_TWO_HOSTS": served.broker_url,
            "UPTIER_TEST_POSTGRES_URL": served.database_url,
        }
        return _wait(hosts.work.command(*words), os.environ | given)


def _wait(words: Sequence[str], env: dict[str, str]) -> int:
    """Run to the end. Ctrl-C reaches pytest by itself; it is given the time to clear up."""
    process = subprocess.Popen(words, cwd=ROOT, env=env | {"PYTHONPATH": str(ROOT)})
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


def _end(_number: int, _frame: object) -> NoReturn:
    raise SystemExit(143)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
