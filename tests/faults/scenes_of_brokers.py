"""A broker that dies and comes back with its data, and connections that hang half-open."""

from __future__ import annotations

import time

from tests.faults.scene import Form, Place, scene
from tests.faults.stage import Stage

RESTART_BOUND_S = 15.0
FEW = 2
"""Questions in a batch, so that a recovery is not that of minutes of backlog."""


@scene(
    5, "the broker killed and started again",
    long=Form(values=(3.0, 30.0, 120.0)), short=Form(values=(3.0,)),
    bound_s=RESTART_BOUND_S, place=Place.OWN_BROKER,
)  # fmt: skip
def broker_killed(stage: Stage) -> None:
    """Recovery: from the broker's return until a decision asked then, and all that was open at
    its death, are settled."""
    own = stage.ground.own
    assert own is not None
    assert own.child is not None
    with stage.load(lambda: stage.questions.mixed(FEW)):
        for seconds in stage.rounds():
            before = stage.open()
            stage.tell(f"the broker dies for {seconds:.0f} s")
            own.child.kill()
            time.sleep(seconds)
            own.start()
            since = time.monotonic()
            stage.recover([*before, *stage.submit([stage.questions.one()])], since)


@scene(
    6, "connections to the broker half-open",
    long=Form(values=(60.0,) * 3), short=Form(values=(8.0,)),
    bound_s=60.0 + RESTART_BOUND_S, place=Place.OWN_BROKER,
)  # fmt: skip
def half_open(stage: Stage) -> None:
    """Recovery: from the beginning until a decision asked then, and all that was open, are
    settled. New connections pass, so that a worker that notices may recover earlier."""
    proxy = stage.ground.proxy
    assert proxy is not None
    with stage.load(lambda: stage.questions.mixed(FEW)):
        for seconds in stage.rounds():
            since = time.monotonic()
            stage.tell(f"{proxy.stall()} connections hang for {seconds:.0f} s")
            asked = [*stage.open(), *stage.submit([stage.questions.one()])]
            took = stage.wait(asked, since) if seconds > 30 else 0.0
            time.sleep(max(0.0, seconds - (time.monotonic() - since)))
            proxy.go_on()
            stage.outcome.recoveries_s.append(took or stage.wait(asked, since))
