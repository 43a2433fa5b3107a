"""Short closed-choice prompts whose next token shows whether a format kept a model's answers."""

from __future__ import annotations

PROMPTS: tuple[str, ...] = (
    "Question: Is ice colder than steam? Answer yes or no.\nAnswer:",
    "Question: Can a fish ride a bicycle to work? Answer yes or no.\nAnswer:",
    "Question: Is seven larger than twelve? Answer yes or no.\nAnswer:",
    "Question: Do plants need light to grow? Answer yes or no.\nAnswer:",
    "Review: The food was cold and the waiter was rude.\nSentiment (positive or negative):",
    "Review: A wonderful evening, we will come again soon.\nSentiment (positive or negative):",
    "Review: The battery died after two days.\nSentiment (positive or negative):",
    "Review: Exactly what I needed, and it arrived early.\nSentiment (positive or negative):",
    "Options: A) Paris B) Rome C) Madrid\nThe capital of France is option",
    "Options: A) a hammer B) a spoon C) a pillow\nTo eat soup one takes option",
    "Options: A) red B) green C) blue\nA clear sky at noon has the colour of option",
    "Options: A) Monday B) Friday C) Sunday\nThe day after Saturday is option",
    "You are hungry. There is bread on the table.\nActions: eat, sleep, work, talk.\nAction:",
    "You are tired and it is midnight.\nActions: eat, sleep, work, talk.\nAction:",
    "Your friend asks you a question.\nActions: eat, sleep, work, talk.\nAction:",
    "A deadline is in one hour.\nActions: eat, sleep, work, talk.\nAction:",
    "Ticket: I was charged twice this month.\nTeam (billing, technical, sales):",
    "Ticket: The page shows error 500 when I log in.\nTeam (billing, technical, sales):",
    "Ticket: Do you offer a discount for schools?\nTeam (billing, technical, sales):",
    "File: main.py\nLanguage (python, java, rust):",
    "File: Server.java\nLanguage (python, java, rust):",
    "Number: 14\nParity (even or odd):",
    "Number: 9\nParity (even or odd):",
    "Claim: The sun rises in the west.\nVerdict (true or false):",
)
