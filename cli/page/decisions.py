"""Single decisions with their attempts. Prompts and answers are text here, whatever is in them."""

from __future__ import annotations

from collections.abc import Sequence

from cli.page.drawing import count, duration, money
from cli.page.markup import Child, Html, joined, table, tag
from cli.page.palette import Palette
from ledger.run_extremes import Told, Try

WITHHELD = "Private: prompt and answers are not shown."


def decisions(told: Sequence[Told], palette: Palette, by: str, texts: bool) -> Html:
    """A list to unfold. ``by`` is ``time`` or ``score``, whichever they are the extremes of;
    without ``texts`` none has its prompt and answers."""
    return joined([_decision(one, palette, by, texts) for one in told])


def _decision(one: Told, palette: Palette, by: str, texts: bool) -> Html:
    score = "not scored" if one.score is None else f"score {one.score:.2f}"
    figure = duration(one.seconds) if by == "time" else score
    head = tag(
        "summary",
        tag("span", figure, class_="figure"),
        tag("span", one.key, class_="key"),
        tag("span", one.kind, class_="muted-text"),
        tag("span", one.status, class_=f"badge {palette.ending(one.status)}"),
        tag("span", one.answer_lane or "", class_="muted-text"),
    )
    parts: list[Child] = [_facts(one, score, texts)]
    if one.private or not texts:
        parts.append(tag("p", WITHHELD if one.private else "Texts are left out.", class_="note"))
    else:
        cut = one.prompt_chars - len(one.prompt)
        more = f" (the first {len(one.prompt):,} of {one.prompt_chars:,} characters)" if cut else ""
        parts += [tag("h4", f"Prompt{more}"), tag("pre", one.prompt)]
        if one.answer:
            parts += [tag("h4", "Answer"), tag("pre", one.answer)]
    parts += [tag("h4", "Attempts"), _attempts(one, texts and not one.private)]
    return tag("details", head, *parts, class_="decision")


def _facts(one: Told, score: str, texts: bool) -> Html:
    facts = [
        f"settled after {duration(one.seconds)}", score, f"cost {money(one.cost_micros)}",
        f"id {one.id}",
    ]  # fmt: skip
    if one.expected is not None and texts:
        facts.append(f"expected {one.expected}")
    if one.reason and texts:
        facts.append(one.reason)
    return tag("p", " · ".join(facts), class_="note")


def _attempts(one: Told, texts: bool) -> Html:
    heads = ["lane", "model", "outcome", "score", "checks", "waited", "at the model",
             "tokens in / out", "cost", *(["said"] if texts else [])]  # fmt: skip
    rows = [_row(attempt, texts) for attempt in one.tries]
    if not rows:
        return tag("p", "None: it was settled without asking a model.", class_="note")
    return table(heads, rows, f"Attempts of {one.key}")


def _row(one: Try, texts: bool) -> list[Child]:
    verdict = {True: "passed", False: "failed the check", None: one.outcome}[one.passed]
    checks = ", ".join(f"{name} {value:.2f}" for name, value in one.checks.items())
    said: list[Child] = [tag("pre", one.said or one.error), *(tag("p", i) for i in one.issues)]
    return [
        f"{one.lane} #{one.number}", one.model, verdict,
        "-" if one.score is None else f"{one.score:.2f}", checks or "-",
        duration(one.waiting_ms / 1000), duration(one.inference_ms / 1000),
        f"{count(one.tokens_in)} / {count(one.tokens_out)}", money(one.cost_micros),
        *([joined(said)] if texts else []),
    ]  # fmt: skip
