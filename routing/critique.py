"""The critic's question: the fast model is asked whether an answer fits."""

from __future__ import annotations

from routing.decision import ChoiceOutput, Decision, Preferences

CRITIC_KIND = "self_critique"
YES, NO = "yes", "no"
TEMPLATE = "self_critique@1"
LONGEST_QUOTE = 600
"""Characters of the question that the critic is shown; its end says what is asked."""

SYSTEM = (
    "You check answers. You see a question and the answer somebody gave. "
    "Say yes if the answer fits the question and could be used as it stands. "
    "Say no if it misses the point, breaks off or makes no sense. "
    "Reply with one of: yes, no."
)


def critic_question(asked: Decision, answer: str, key: str) -> Decision:
    """A decision that asks whether ``answer`` fits what was ``asked``; as private as that was.

    It draws on the same ``max_cost_usd`` and the same payer, where its lane is paid.
    """
    wishes = asked.preferences
    quote = asked.prompt[-LONGEST_QUOTE:]
    return Decision(
        kind=CRITIC_KIND,
        prompt=f"Question: {quote}\nAnswer given: {answer}\nDoes the answer fit?",
        output=ChoiceOutput(labels=(YES, NO)),
        key=key,
        system=SYSTEM,
        template=TEMPLATE,
        agent_id=asked.agent_id,
        day=asked.day,
        preferences=Preferences(
            privacy=wishes.privacy,
            cache=wishes.cache,
            max_cost_usd=wishes.max_cost_usd,
            payer=wishes.payer,
        ),
        seed=asked.seed,
    )
