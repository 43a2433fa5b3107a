"""What strikes whom: incidents and crises dealt from shuffled decks to agents at their desks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from producers.simulation.crises import (
    bold_wish,
    heavy_loss,
    resource_conflict,
    riddle,
    terms_disputed,
)
from producers.simulation.dice import Dice
from producers.simulation.incidents import (
    blocker_strikes,
    competing_tasks,
    delay_noticed,
    message_due,
    plan_wanted,
    review_asked,
    rivals,
)
from producers.simulation.people import Agent
from producers.simulation.situations import Situation
from producers.simulation.world import World

Strike = Callable[[World, Agent], Situation]

INCIDENT_SHARE = 0.15
CRISIS_SHARE = 0.02
"""Shares of all decisions: the 83/15/2 % of the scenario."""
INCIDENTS: tuple[Strike, ...] = (
    *[competing_tasks] * 7,
    *[blocker_strikes] * 7,
    *[review_asked] * 6,
    *[message_due] * 5,
    *[delay_noticed] * 4,
    plan_wanted,
)
"""A card more is half a percent more of all decisions; written answers are dear, so few."""
CRISES: tuple[Strike, ...] = (resource_conflict, terms_disputed, riddle, bold_wish, heavy_loss)

_SUITS: Mapping[Strike, Callable[[Agent], bool]] = {
    competing_tasks: lambda agent: len(rivals(agent)) > 1,
    blocker_strikes: lambda agent: agent.task is not None and agent.task.blocker is None,
    plan_wanted: lambda agent: agent.task is not None and agent.task.size == "large",
    delay_noticed: lambda agent: agent.task is not None,
}
"""Whom a card is dealt to by preference, so that it changes the world as little as it may."""


class Deck:
    """Cards in random order, shuffled anew when they run out, so that even a day sees each."""

    def __init__(self, cards: Sequence[Strike], share: float, dice: Dice) -> None:
        self._cards = cards
        self._share = share
        self._dice = dice
        self._left: list[Strike] = []
        self._owed = 0.0

    def deal(self, agents: int, at_most: int) -> list[Strike]:
        """The cards of one tick; what finds nobody at a desk waits for a later tick.

        Busy and quiet ticks differ by half, but over the day the share of decisions holds.
        """
        self._owed += self._share * agents * (0.5 + self._dice.below(101) / 100)
        count = min(int(self._owed), at_most)
        self._owed -= count
        return [self._next() for _ in range(count)]

    def _next(self) -> Strike:
        if not self._left:
            self._left = self._dice.shuffled(self._cards)
        return self._left.pop()


class Fate:
    """Both decks together."""

    def __init__(self, seed: int) -> None:
        self._crises = Deck(CRISES, CRISIS_SHARE, Dice(seed, "crises"))
        self._incidents = Deck(INCIDENTS, INCIDENT_SHARE, Dice(seed, "incidents"))

    def strike(self, world: World) -> dict[int, Situation]:
        """Deal this tick's cards; the situations they make, by the index of the agent struck."""
        everybody = len(world.agents)
        present = [agent for agent in world.agents if not agent.away]
        cards = self._crises.deal(everybody, len(present))
        cards += self._incidents.deal(everybody, len(present) - len(cards))
        free = world.fate.shuffled(present)
        return {
            agent.index: card(world, agent) for card in cards for agent in [_victim(card, free)]
        }


def _victim(card: Strike, free: list[Agent]) -> Agent:
    """Takes from the free agents the first whom the card suits, or else simply the first."""
    suits = _SUITS.get(card)
    found = next((agent for agent in free if suits is None or suits(agent)), free[0])
    free.remove(found)
    return found
