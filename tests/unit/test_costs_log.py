"""Usage logs: what is written is read again, and what is no record is named by its line."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.prices import Price
from ledger.usage import ANSWERED, Place, Role, Usage
from producers.costs_log import FIELDS, Format, exact, write_log
from producers.costs_reading import LONGEST_LINE, SHOWN, LogReader
from producers.costs_sums import By, sum_up

WORDS = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=20
)  # fmt: skip
COUNTS = st.integers(0, 10**9)
MICROS = st.integers(0, 10**12).map(Decimal)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    tokens, called = draw(COUNTS), draw(st.booleans())
    place = draw(st.sampled_from(Place)) if called else None
    outcome = draw(st.sampled_from([ANSWERED, "failed", "late", "intent"])) if called else "cached"
    return Usage(
        time=draw(st.none() | st.integers(0, 4 * 10**15)), run=draw(WORDS), decision=draw(WORDS),
        attempt=draw(WORDS) if called else "", kind=draw(WORDS), role=draw(st.sampled_from(Role)),
        lane=draw(WORDS),
        tier=draw(WORDS), model=draw(WORDS), place=place, planned=draw(st.sampled_from(Place)),
        outcome=outcome, tokens_in=tokens, tokens_cached=draw(st.integers(0, tokens)),
        tokens_out=draw(COUNTS), cost=draw(MICROS), unknown=draw(MICROS),
        latency_us=draw(st.none() | st.integers(0, 10**12)),
        waiting_us=draw(st.none() | st.integers(0, 10**12)),
        score=draw(st.none() | st.floats(0, 1)), passed=draw(st.none() | st.booleans()),
        fallback=draw(st.booleans()), last=draw(st.booleans()), api_in=draw(COUNTS),
        api_out=draw(COUNTS),
    )  # fmt: skip


def written(records: Sequence[Usage], form: Format) -> str:
    file = io.StringIO(newline="")
    assert write_log(iter(records), file, form) == len(records)
    return file.getvalue()


def read(text: str | bytes, form: Format = Format.JSONL) -> tuple[list[Usage], LogReader]:
    raw = text if isinstance(text, bytes) else text.encode()
    reader = LogReader(io.BytesIO(raw), form)
    return list(reader), reader


@given(records=st.lists(usages(), max_size=5), form=st.sampled_from(Format))
def test_what_is_written_is_read_again(records: list[Usage], form: Format) -> None:
    found, reader = read(written(records, form), form)
    assert found == records
    assert reader.bad == []


def test_money_is_exact_to_the_last_digit() -> None:
    assert exact(Decimal(0)) == "0.000000"
    assert exact(Decimal(123)) == "0.000123"
    assert exact(Decimal(10**12 + 1)) == "1000000.000001"
    assert exact(Decimal("0.25")) == "0.00000025"
    one = '{"prompt_tokens": 9, "completion_tokens": 1, "cost_usd": 0.1}\n'
    [first, *_] = found = read(one * 10)[0]
    assert first.cost == 100_000
    assert sum_up(found).everything.cost == 1_000_000


FOREIGN = {"tier": "api_fallback", "model": "gpt-4o", "prompt_tokens": 900, "completion_tokens": 90,
           "cost": "0.00315", "latency": 1900.5, "success": True, "quality_score": 0.92,
           "fallback_used": True, "timestamp": "2026-11-20T10:00:00+01:00"}  # fmt: skip


def test_a_log_of_another_maker_needs_tokens_and_cost_alone() -> None:
    bare = {"prompt_tokens": 100, "completion_tokens": 5, "cost_usd": 0}
    failed = {**bare, "success": False, "extra": [1, 2]}
    lines = "\n".join(json.dumps(one) for one in (FOREIGN, bare, failed))
    found, reader = read(lines)
    assert (reader.good, reader.malformed) == (3, 0)
    foreign, plain, gone = found
    assert (foreign.place, foreign.planned, foreign.last) == (Place.API, Place.LOCAL, True)
    assert foreign.cost == 3150
    assert foreign.latency_us == 1_900_500
    assert foreign.time == 1_795_165_200_000_000
    assert (plain.place, plain.outcome, plain.api_in, plain.api_out) == (
        Place.LOCAL, ANSWERED, 100, 5,
    )  # fmt: skip
    assert (gone.success, gone.last, gone.api_in) == (False, False, 0)
    total = sum_up(found, [Price(input=3, output=15)], [By.MODEL])
    assert total.everything.api == [1000 * 3 + 95 * 15]
    assert set(total.groups[By.MODEL]) == {"gpt-4o", "none"}
    assert (total.everything.fell_back, total.everything.answers) == (1, 2)


GOOD = '{"prompt_tokens": 1, "completion_tokens": 1, "cost_usd": "0.1"}'


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 2: "),
        ("[1]", "no JSON object"),
        ("null", "no JSON object"),
        ("[" * 200_000, "line 2: "),
        ('{"prompt_tokens": ' + "9" * 5000 + "}", "line 2: "),
        ('{"prompt_tokens": 1, "completion_tokens": 1}', "cost"),
        (GOOD.replace("1,", "-1,", 1), "prompt_tokens"),
        (GOOD.replace('"0.1"', "-0.1"), "cost_usd"),
        (GOOD.replace('"0.1"', '"1e400"'), "cost_usd"),
        (GOOD.replace('"0.1"', '"1e-400"'), "cost_usd"),
        (GOOD.replace('"0.1"', "NaN"), "NaN is no number"),
        (GOOD.replace('"0.1"', '"much"'), "(got 'much')"),
        (GOOD.replace('"0.1"', '"0.1", "quality_score": 1.5'), "quality_score"),
        (GOOD.replace('"0.1"', '"0.1", "cached_tokens": 2'), "cached_tokens"),
        (GOOD.replace('"0.1"', '"0.1", "success": true, "outcome": "late"'), "contradict"),
        (GOOD.replace('"0.1"', '"0.1", "time": "soon"'), "time"),
        (GOOD.replace('"0.1"', '"0.1", "time": 1e30'), "time"),
        (GOOD.replace('"0.1"', '"0.1", "kind": "\\ud800"'), "kind"),
        (GOOD.replace('"0.1"', '"0.1", "role": "boss"'), "role"),
        (" " * LONGEST_LINE + "x", "longer than"),
    ],
)
def test_a_malformed_line_is_named_and_the_rest_goes_on(line: str, says: str) -> None:
    found, reader = read(f"{GOOD}\n{line}\n\n{GOOD}")
    assert (len(found), reader.good, reader.malformed) == (2, 2, 1)
    [said] = reader.bad
    assert said.startswith("line 2: ")
    assert says in said
    assert len(said) < 400
    assert "\n" not in said


def test_bytes_that_are_no_text_cost_their_line_alone() -> None:
    raw = GOOD.encode() + b"\n\xff\xfe\n" + GOOD.encode()
    found, reader = read(raw)
    assert (len(found), reader.bad) == (2, ["line 2: is not UTF-8"])
    table = (
        b"\xef\xbb\xbfprompt_tokens,completion_tokens,cost_usd,kind\n1,1,0,a\n1,1,0,\xff\n1,1,0,b\n"
    )
    found, reader = read(table, Format.CSV)
    assert [one.kind for one in found] == ["a", "b"]
    assert reader.bad == ["line 3: is not UTF-8"]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("1,1,0", "has 3 cells, and the header 4"),
        ("1,1,0,a,b", "has 5 cells"),
        ("1,x,0,a", "completion_tokens"),
        ('1,1,0,"a"b', "line 3: "),
        (",1,0,a", "prompt_tokens"),
        ('1,1,0,"a', "line 3: "),
        ('"1,1,0,a', "line 3: "),
    ],
)
def test_a_malformed_row_is_named_and_the_rest_goes_on(row: str, says: str) -> None:
    text = f"prompt_tokens,completion_tokens,cost_usd,kind\n1,1,0,a\n{row}\n1,1,0,b\n"
    found, reader = read(text, Format.CSV)
    assert [one.kind for one in found] == ["a", "b"]
    [said] = reader.bad
    assert said.startswith("line 3: ")
    assert says in said


HEAD = "prompt_tokens,completion_tokens,cost_usd,kind\n"


@pytest.mark.parametrize("rows", [1, 5, 1000])
def test_a_quote_that_nobody_closed_costs_its_own_row_alone(rows: int) -> None:
    text = HEAD + '1,1,0,"open\n' + "1,1,0,a\n" * rows + '1,1,0,"two\nlines"\n1,x,0,b\n'
    found, reader = read(text, Format.CSV)
    assert [one.kind for one in found] == ["a"] * rows + ["two\nlines"]
    assert [said.split(":")[0] for said in reader.bad] == ["line 2", f"line {rows + 5}"]


def test_bytes_that_are_no_text_inside_a_quote_cost_their_line_alone() -> None:
    raw = HEAD.encode() + b'1,1,0,"open\n1,1,0,\xff\n1,1,0,b\n'
    found, reader = read(raw, Format.CSV)
    assert [one.kind for one in found] == ["b"]
    assert [said.split(":")[0] for said in reader.bad] == ["line 2", "line 3"]
    assert reader.bad[1] == "line 3: is not UTF-8"


def test_many_malformed_lines_are_counted_but_not_kept() -> None:
    found, reader = read("{\n" * 1000 + GOOD)
    assert (len(found), reader.malformed, len(reader.bad)) == (1, 1000, SHOWN)


def test_cells_are_no_formulas_to_a_spreadsheet() -> None:
    words = ("=cmd()", "+1", "-1", "@x", "'quoted", "\uff1d1", "plain")
    records = [Usage(None, "", "", "a", word, Role.QUESTION, "", "", "", Place.LOCAL, None,
                     ANSWERED, last=True) for word in words]  # fmt: skip
    text = written(records, Format.CSV)
    column = FIELDS.index("kind")
    cells = [line.split(",")[column] for line in text.splitlines()[1:]]
    assert cells == ["'=cmd()", "'+1", "'-1", "'@x", "''quoted", "'\uff1d1", "plain"]
    assert [one.kind for one in read(text, Format.CSV)[0]] == list(words)
