"""Sessions of agents: wishes, history within bounds and privacy, going on where they stopped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import text

from cli.chat_lines import Line, parsed, read_script, wish_of
from cli.chat_screen import Screen, printable
from config.errors import ConfigurationError, InputError
from config.load import load_catalog
from ledger import lifecycle
from ledger.clock import now
from ledger.records import Planned
from producers.nodespace.agents import agent_of, changed, planned, preferences_of
from producers.nodespace.history import BYTES_PER_TOKEN, Turn, composed, room_of
from producers.nodespace.session import NodeSession, bare
from producers.nodespace.summary import shown, summary
from producers.streaming import Piece
from routing.decision import Decision, Preferences, Privacy, Settled, Status
from routing.policy import plan
from tests.unit.house import House
from tests.unit.ledgers import rows

PROFILE = """
[lanes.first]
tier = "low"
model = "one"
[models.one]
backend = "scripted"
context = 1024
[models.one.script]
lines = [
  { contains = "fails", fail = "out of order", retryable = false },
  { contains = "largest", answer = "The heron is the largest of them." },
  { contains = "birds", answer = "Heron, wren and swift are three birds." },
  { answer = "That is another question." },
]
[kinds.conversation]
tier = "low"
output = "text"
max_tokens = 200
[agents.guide]
preset = "creator"
max_cost_usd = "0.02"
system = "You know birds."
[agents.keeper]
preset = "enterprise"
"""


class HouseClient:
    """Stands in for a client: asks in this process, with no broker."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.asked: list[Decision] = []
        config: dict[str, Any] = {}
        self.run = SimpleNamespace(id=house.run, config=config)

    def classify(self, decisions: Sequence[Decision]) -> list[Decision]:
        return list(decisions)

    def stream(self, decision: Decision) -> Iterator[Piece | Settled]:
        self.asked.append(decision)
        catalog = self.house.settings.catalog
        item = Planned(decision, plan(decision, catalog, ()))
        submission = lifecycle.submit(self.house.engine, self.house.run, [item], now())
        self.house.waiting.extend(submission.messages)
        self.house.work()
        found = self.house.settled(submission.ids[0])
        yield Piece("first", 1, found.answer[:5])
        yield found


@pytest.fixture
def client(tmp_path: Path) -> Iterator[HouseClient]:
    house = House(tmp_path, PROFILE)
    yield HouseClient(house)
    house.close()


def opened(client: HouseClient, agent: str = "guide", **more: Any) -> NodeSession:
    house = client.house
    catalog = house.settings.catalog
    preferences, _ = preferences_of(agent_of(catalog, agent)[1], catalog)
    ticks = iter(range(1_000))
    return NodeSession(
        client, house.engine, catalog, (), agent, preferences,  # type: ignore[arg-type]
        clock=lambda: float(next(ticks)), **more,
    )  # fmt: skip


def ask(chat: NodeSession, request: str) -> Turn:
    *_, last = chat.ask(request)
    assert isinstance(last, Turn)
    return last


def test_wishes_of_the_command_line_are_kept_for_whoever_resumes(client: HouseClient) -> None:
    opened(client)
    assert client.run.config["wishes"]["preset"] == "creator"
    preferences = Preferences(preset="creator", privacy=Privacy.HIGH)
    house = client.house
    NodeSession(
        client, house.engine, house.settings.catalog, (), "guide", preferences,  # type: ignore[arg-type]
        clock=lambda: 0.0,
    )  # fmt: skip
    assert client.run.config["wishes"]["privacy"] == "high"


def test_a_request_goes_with_its_agents_wishes_and_what_was_said_before(
    client: HouseClient,
) -> None:
    chat = opened(client)
    first = ask(chat, "Name three birds.")
    assert (first.status, first.tier, first.local) == (Status.ACCEPTED, "low", True)
    assert (first.seconds, first.streamed_chars) == (1.0, 5)
    ask(chat, "Which is the largest?")
    one, two = client.asked
    assert one.prompt == "Name three birds."
    assert (one.system, one.agent_id, one.kind) == ("You know birds.", "guide", "conversation")
    wishes = one.preferences
    assert (wishes.preset, wishes.privacy) == ("creator", Privacy.MEDIUM)
    assert wishes.max_cost_usd == chat.preferences.max_cost_usd == Decimal("0.02")
    assert "User: Name three birds.\nAssistant: Heron, wren" in two.prompt
    assert two.prompt.endswith("User: Which is the largest?")


def test_what_was_private_is_no_history_of_what_may_leave(client: HouseClient) -> None:
    chat = opened(client)
    chat.change(privacy="high")
    ask(chat, "Name my secret birds.")
    chat.change(privacy="low")
    ask(chat, "And now?")
    assert client.asked[-1].prompt == "And now?"
    chat.change(privacy="maximum")
    ask(chat, "What did I ask?")
    assert "secret birds" in client.asked[-1].prompt
    assert "And now?" in client.asked[-1].prompt


def test_a_preset_that_stays_home_cannot_be_talked_out_of_it(client: HouseClient) -> None:
    chat = opened(client, "keeper")
    chat.change(privacy="low")
    assert chat.privacy is Privacy.MAXIMUM
    assert ask(chat, "birds?").privacy is Privacy.MAXIMUM


def test_history_is_as_long_as_the_narrowest_lane_allows(client: HouseClient) -> None:
    chat = opened(client)
    ask(chat, "Name three birds.")
    chat.turns = [replace(chat.turns[0], number=n, request=f"request {n} " + "x" * 300)
                  for n in range(1, 40)]  # fmt: skip
    ask(chat, "The last one")
    prompt = client.asked[-1].prompt
    catalog = client.house.settings.catalog
    room = room_of(plan(client.asked[-1], catalog, ()), client.asked[-1], catalog)
    assert room <= (1024 - 200) * BYTES_PER_TOKEN
    assert room - 500 < len(prompt.encode()) <= room
    assert "request 39 " in prompt
    assert "request 1 " not in prompt


def test_a_session_goes_on_where_it_stopped(client: HouseClient) -> None:
    chat = opened(client)
    before = [ask(chat, "Name three birds."), ask(chat, "//strange? \n yes")]
    again = opened(client)
    assert [turn.request for turn in again.turns] == [turn.request for turn in before]
    assert all(turn.recorded for turn in again.turns)
    assert ask(again, "Which?").number == 3
    assert "Name three birds." in client.asked[-1].prompt


def test_a_script_that_is_replayed_asks_only_what_has_no_answer(client: HouseClient) -> None:
    chat = opened(client)
    ask(chat, "Name three birds.")
    decision = lifecycle.submit(
        client.house.engine, client.house.run,
        [_planned(client, "Second", "turn.00002.1.6")], now(),
    )  # fmt: skip
    lifecycle.cancel(client.house.engine, now(), ids=decision.ids)
    client.house.waiting.clear()
    client.asked.clear()
    again = opened(client, replay=True)
    assert again.turns == []
    assert ask(again, "Name three birds.").recorded
    assert client.asked == []
    assert ask(again, "Second").status is Status.ACCEPTED
    assert [one.key for one in client.asked] == ["turn.00002.2.6"]


def _planned(client: HouseClient, request: str, key: str) -> Planned:
    catalog = client.house.settings.catalog
    decision = bare("guide", request, Preferences(), catalog).model_copy(update={"key": key})
    return Planned(decision, plan(decision, catalog, ()))


def test_what_was_given_up_is_asked_anew_though_it_is_as_long(client: HouseClient) -> None:
    chat = opened(client)
    items = chat.ask("Name three birds!")
    assert isinstance(next(items), Piece)
    items.close()  # Ctrl-C at a terminal
    again = ask(chat, "Name three birds.")
    assert (again.request, again.number) == ("Name three birds.", 1)
    assert [d.key for d in client.asked] == ["turn.00001.1.17", "turn.00001.2.17"]
    assert client.asked[1].prompt == "Name three birds."
    [row] = [r for r in rows(client.house.engine, "decision") if r["key"] == "turn.00001.2.17"]
    assert row["prompt"] == "Name three birds."


def test_the_last_of_many_tries_is_the_one_that_counts(client: HouseClient) -> None:
    chat = opened(client)
    for _ in range(11):
        items = chat.ask("Name three birds.")
        next(items)
        with client.house.engine.begin() as connection:
            connection.execute(text("update decision set status = 'cancelled'"))
        items.close()
        chat = opened(client, replay=True)
    assert client.asked[-1].key == "turn.00001.11.17"


def test_a_failure_of_all_lanes_is_one_clear_reason(client: HouseClient) -> None:
    turn = ask(opened(client), "this fails")
    assert (turn.answer, turn.status) == ("", Status.DEAD)
    assert "first failed: out of order" in turn.reason
    assert "\n" not in turn.reason


def test_wishes_are_kept_for_whoever_resumes_and_wrong_ones_change_nothing(
    client: HouseClient,
) -> None:
    chat = opened(client)
    chat.change(max_cost_usd="0.5")
    [run] = rows(client.house.engine, "run")
    assert '"max_cost_usd": "0.5"' in run["config"]
    before = chat.preferences
    wrong = {"preset": "nobody", "adapter": "none-such", "max_cost_usd": "-1", "privacy": "some"}
    for name, value in wrong.items():
        with pytest.raises(InputError) as refused:
            chat.change(**{name: value})
        assert value in str(refused.value)
        assert "\n" not in str(refused.value)
    assert chat.preferences == before


def test_agents_of_the_nodespace_profile_have_presets_and_adapters() -> None:
    catalog = load_catalog("nodespace")
    assert agent_of(catalog, None)[0] == "assistant"
    assert {agent.preset for agent in catalog.agents.values()} == {"creator", "enterprise"}
    name, analyst = agent_of(catalog, "analyst")
    preferences, missing = preferences_of(analyst, catalog)
    assert missing is None
    found = planned(bare(name, "Why?", preferences, catalog), catalog, ())
    assert found.lanes == ("tier1",)
    preferences, missing = preferences_of(catalog.agents["writer"], catalog)
    assert preferences.adapter is None
    assert missing is not None
    assert "content-generation-v1" in missing
    wished = changed(preferences, adapter="content-generation-v1")
    with pytest.raises(InputError, match="has no file"):
        planned(bare("writer", "Write.", wished, catalog), catalog, ())
    with pytest.raises(InputError, match="'nobody'.*assistant"):
        agent_of(catalog, "nobody")


@pytest.mark.parametrize(
    ("agent", "says"),
    [
        ('preset = "nobody"', "agents.x.preset"),
        ('kind = "nobody"', "agents.x.kind"),
        ('kind = "question"', "not answered in text"),
        ('adapter = "nobody"', "agents.x.adapter"),
        ('max_cost_usd = "-1"', "agents.x.max_cost_usd"),
        ('privacy = "some"', "agents.x.privacy"),
    ],
)
def test_an_agent_that_cannot_be_is_refused_with_its_place(
    tmp_path: Path, agent: str, says: str
) -> None:
    path = tmp_path / "wrong.toml"
    scripted = (Path(__file__).parents[1] / "profiles_scripted.toml").read_text()
    path.write_text(f'{scripted}\n[kinds.conversation]\ntier = "local_fast"\n[agents.x]\n{agent}\n')
    with pytest.raises(ConfigurationError, match=says):
        load_catalog(str(path))


def test_lines_are_requests_or_commands() -> None:
    assert parsed("  \n") is None
    assert parsed("Hello /quit") == Line(None, "Hello /quit")
    assert parsed("//etc is a folder?") == Line(None, "/etc is a folder?")
    assert parsed("/privacy high") == Line("privacy", "high")
    assert wish_of(Line("max-cost", "none")) == {"max_cost_usd": None}
    assert wish_of(Line("adapter", "a-v1")) == {"adapter": "a-v1"}
    for wrong, word in (("/prviacy", "/privacy"), ("/preset", "NAME"), ("/quit now", "'now'")):
        with pytest.raises(InputError, match=word):
            parsed(wrong)


def test_a_script_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "script"
    path.write_text("# birds\nName one.\n\n/privacy high\n")
    assert read_script(path) == [Line(None, "Name one."), Line("privacy", "high")]
    path.write_text("Name one.\n/oops\n")
    with pytest.raises(InputError, match="line 2.*'/oops'"):
        read_script(path)
    path.write_text("# nothing\n/cost\n")
    with pytest.raises(InputError, match="asks nothing"):
        read_script(path)
    with pytest.raises(InputError, match="No such file"):
        read_script(tmp_path / "none")


def turn(answer: str, **more: Any) -> Turn:
    first = Turn(
        number=1, request="What?", answer=answer, status=Status.ACCEPTED, reason="", lane="first",
        tier="low", model="one", local=True, privacy=Privacy.LOW, adapter=None, cost_micros=0,
        seconds=0.5,
    )  # fmt: skip
    return replace(first, **more)


def test_the_screen_shows_each_answer_once_whatever_was_heard(
    capsys: pytest.CaptureFixture[str],
) -> None:
    screen = Screen(quiet=False)
    screen.piece(Piece("first", 1, "Half an "))
    screen.turn(turn("Half an answer."))
    assert capsys.readouterr().out.startswith("Half an answer.\n  [low, one, accepted, $0.0000")
    screen.piece(Piece("first", 1, "No."))
    screen.piece(Piece("second", 1, "Yes"))
    screen.turn(turn("Yes.", tier="high"))
    shown_text = capsys.readouterr().out
    assert "No.\n  [the text above did not pass; second writes anew]\nYes.\n" in shown_text
    screen.piece(Piece("second", 1, "worse"))
    screen.turn(turn("better"))
    assert "this is the answer that counts]\nbetter\n" in capsys.readouterr().out
    screen.turn(turn("", status=Status.DEAD, reason="first failed: away", tier=None))
    assert "no answer: first failed: away" in capsys.readouterr().out
    quiet = Screen(quiet=True)
    quiet.piece(Piece("first", 1, "x"))
    quiet.turn(turn("x"))
    assert capsys.readouterr().out == ""


def test_what_a_model_writes_does_nothing_to_a_terminal() -> None:
    assert printable("a\x1b[2J\x07b\u202ec\r\n\td") == "a[2Jbc\n\td"


def test_the_summary_adds_up() -> None:
    turns = [
        turn("a", cost_micros=2_000, local=False, tier="cloud", streamed_chars=1),
        turn("b", privacy=Privacy.HIGH, adapter="x-v1"),
        turn("", status=Status.DEAD, tier=None, local=False),
    ]
    found = summary(turns)
    assert (found.requests, found.answered, found.private, found.streamed) == (3, 2, 1, 1)
    assert (found.cost_usd, found.dearest_usd, found.local_share) == (0.002, 0.002, 0.5)
    assert found.by_tier == {"cloud": 1, "low": 1, "none": 1}
    assert found.by_adapter == {"x-v1": 1}
    assert shown(turns[1])["privacy"] == "high"
    assert summary([]).local_share is None


def test_a_prompt_without_history_is_the_request_alone() -> None:
    assert composed([], "What?", Privacy.LOW, 1_000) == "What?"
    assert composed([turn("")], "What?", Privacy.LOW, 1_000) == "What?"
    assert composed([turn("Yes.")], "What?", Privacy.LOW, 10) == "What?"
