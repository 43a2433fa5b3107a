"""Company, and solitude on request."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from workers.solitude import Solitude


def test_who_is_alone_has_nobody_beside() -> None:
    solitude, inside, seen = Solitude(), [0], []
    lock = threading.Lock()

    def work(alone: bool) -> None:
        if alone:
            with solitude.alone():
                seen.append(inside[0])
                time.sleep(0.002)
                seen.append(inside[0])
            return
        with solitude.company():
            with lock:
                inside[0] += 1
            time.sleep(0.001)
            with lock:
                inside[0] -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [i % 5 == 0 for i in range(100)], timeout=30))
    assert seen == [0] * 40
