"""What is rare and hard (tier 3): conflicts, bargains, riddles, wishes and losses."""

from __future__ import annotations

from producers.simulation import rules
from producers.simulation.incidents import task_at_hand
from producers.simulation.people import Agent
from producers.simulation.situations import Situation
from producers.simulation.work import due_words
from producers.simulation.world import World

SHARED = ("the test bench", "the 3D printer", "the last solver licence", "the measuring room")
PARTIES = ("client", "supplier", "factory")
ODDITIES = (
    "holes move by a hair",
    "every third face vanishes",
    "the mass turns negative",
    "threads run backwards",
    "the file opens mirrored",
)
TRIGGERS = ("after each save", "only on one machine", "since the update", "above 80 degrees")
WISHES = ("half as loud", "a third lighter", "easy to clean", "foldable by one hand")
LIMITS = ("no new parts", "no extra cost", "the same tooling", "only recycled material")
LOSSES = (
    "the drawings are overwritten",
    "the server ate the results",
    "the test piece broke",
    "the wrong version was sent out",
)
RECOVERY_FALLBACK = '{"cause": "unknown", "steps": ["stop", "restore the last good version"]}'


def resource_conflict(world: World, agent: Agent) -> Situation:
    """A colleague of the department wants the same thing at the same time."""
    dice, task = world.fate, task_at_hand(world, agent)
    department = agent.role.department
    other = world.someone_else(
        agent, dice, lambda who: not who.away and who.role.department == department
    )
    mine = max(0, min(3, task.days_left(world.tick)))
    theirs = dice.below(4)
    return Situation(
        kind="conflict_resolution",
        values={
            "thing": dice.pick(SHARED),
            "mine": due_words(mine),
            "theirs": due_words(theirs),
        },
        fallback=rules.conflict_resolution(mine, theirs),
        task=task,
        other=other,
        multi_agent=True,
        novel=True,
    )


def terms_disputed(world: World, agent: Agent) -> Situation:
    """Somebody outside wants more than was agreed."""
    dice, task = world.fate, task_at_hand(world, agent)
    extra, slack, paid = dice.between(1, 4), dice.below(5), dice.chance(0.5)
    world.tally.client_changes += 1
    return Situation(
        kind="complex_negotiation",
        values={
            "party": dice.pick(PARTIES),
            "extra": f"{extra} day{'' if extra == 1 else 's'}",
            "slack": f"{slack} day{'' if slack == 1 else 's'}",
            "paid": "paid" if paid else "unpaid",
        },
        fallback=rules.complex_negotiation(slack, extra, paid),
        task=task,
        multi_agent=True,
        novel=True,
    )


def riddle(world: World, agent: Agent) -> Situation:
    """Something happens that nobody has seen before."""
    dice, task = world.fate, task_at_hand(world, agent)
    return Situation(
        kind="novel_problem",
        values={"work": task.work, "fault": f"{dice.pick(ODDITIES)} {dice.pick(TRIGGERS)}"},
        fallback="Take a copy, reduce it to the smallest case and compare it with a good one.",
        task=task,
        novel=True,
    )


def bold_wish(world: World, agent: Agent) -> Situation:
    """The client wishes for something that the usual way does not give."""
    dice, task = world.fate, task_at_hand(world, agent)
    world.tally.client_changes += 1
    return Situation(
        kind="creative_solution",
        values={"part": task.part, "wish": dice.pick(WISHES), "limit": dice.pick(LIMITS)},
        fallback=f"Offer the proven {task.part} and name what the wish would cost.",
        task=task,
        creativity=True,
    )


def heavy_loss(world: World, agent: Agent) -> Situation:
    """Finished work is gone: half of what was done on the task."""
    dice, task = world.fate, task_at_hand(world, agent)
    task.lose_half()
    return Situation(
        kind="recovery_planning",
        values={
            "work": task.work,
            "loss": dice.pick(LOSSES),
            "backup": f"{dice.between(1, 3)} days old" if dice.chance(0.6) else "none",
        },
        fallback=RECOVERY_FALLBACK,
        task=task,
        novel=True,
    )
