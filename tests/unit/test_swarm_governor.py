"""The governor: rules are data, the strictest one holds, and none makes a ruling milder."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.errors import ConfigurationError, InputError
from config.load import load_catalog
from config.swarm import Governor, Verdict
from producers.swarm.actions import ACTIONS, allowed_actions
from producers.swarm.governor import STRICTNESS, UNCHECKED, check_names, rule
from tests.unit.catalogs import catalog

TINY = load_catalog("tiny")
GOVERNOR = TINY.swarm.governor
ALLOW, ESCALATE, DENY = Verdict.ALLOW, Verdict.ESCALATE, Verdict.DENY


def verdict(action: str, given: dict[str, Any], command: tuple[str, ...] = ()) -> Verdict:
    return rule(GOVERNOR, action, given, command=command).verdict


@pytest.mark.parametrize(
    ("expected", "action", "given"),
    [
        (ALLOW, "list_files", {"path": "."}),
        (ALLOW, "edit_file", {"path": "src/main.py"}),
        (ALLOW, "run", {"command": "compile"}),
        (ESCALATE, "run", {"command": "tests"}),
        (ESCALATE, "exec", {"argv": ["ls"]}),
        (ESCALATE, "http_request", {"url": "https://example.org"}),
        (ESCALATE, "spawn_daemon", {"objective": "more"}),
        (ESCALATE, "edit_file", {"path": ".github/workflows/build.yml"}),
        (ESCALATE, "something_new", {}),
        (DENY, "read_file", {"path": "deploy/.env"}),
        (DENY, "edit_file", {"path": "id_rsa"}),
        (DENY, "summarize", {"path": "certs/server.PEM"}),
        (DENY, "delete_branch", {}),
        (DENY, "Drop_Table", {}),
        (DENY, "truncate_log", {}),
    ],
)
def test_the_swarms_rules(expected: Verdict, action: str, given: dict[str, Any]) -> None:
    assert verdict(action, given) is expected


def test_the_words_of_a_command_are_names_too() -> None:
    assert verdict("exec", {}, ("dropdb", "x")) is DENY
    assert verdict("exec", {}, ("git", "push", "--delete", "main")) is DENY
    assert verdict("exec", {}, ("git", "push")) is ESCALATE


def test_answers_that_did_not_pass_are_only_proposed() -> None:
    ruling = rule(GOVERNOR, "edit_file", {"path": "a"}, checked=False)
    assert (ruling.verdict, ruling.reason) == (ESCALATE, UNCHECKED)
    assert rule(GOVERNOR, "drop_it", {}, checked=False).verdict is DENY


VERDICTS = st.sampled_from(list(Verdict))
RULES = st.lists(
    st.builds(
        dict,
        actions=st.sampled_from([("*",), ("read_*",), ("exec",)]),
        words=st.sampled_from([(), ("read",), ("nothing",)]),
        where=st.sampled_from([{}, {"path": "^a"}, {"absent": "."}]),
        ruling=st.sampled_from(["escalate", "deny"]),
        reason=st.just("because"),
    ),
    max_size=5,
)


@given(VERDICTS, RULES, RULES)
def test_more_rules_never_make_a_ruling_milder(own: Verdict, some: Any, more: Any) -> None:
    def ruled(rules: Any) -> int:
        governor = Governor.model_validate({"rulings": {"read_file": own}, "rules": rules})
        return STRICTNESS.index(rule(governor, "read_file", {"path": "abc"}).verdict)

    assert ruled(some) <= ruled([*some, *more])
    assert STRICTNESS.index(own) <= ruled(some)


def test_a_ruling_on_an_unknown_action_is_refused() -> None:
    wrong = Governor.model_validate({"rulings": {"reboot": "deny"}})
    with pytest.raises(ConfigurationError, match=r"reboot.*choose from list_files"):
        check_names(wrong, ACTIONS, "here")
    pattern = {"actions": ["launch_*"], "ruling": "deny", "reason": "no"}
    with pytest.raises(ConfigurationError, match=r"'launch_\*' matches no action"):
        check_names(Governor.model_validate({"rules": [pattern]}), ACTIONS, "here")


@pytest.mark.parametrize(
    "wrong",
    [
        {"rules": [{"ruling": "allow", "reason": "x"}]},
        {"rules": [{"ruling": "deny", "reason": "x", "where": {"path": "("}}]},
        {"rulings": {"exec": "perhaps"}},
        {"approval_ttl_s": 0},
    ],
)
def test_malformed_rules_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Governor.model_validate(wrong)


def test_actions_that_are_wanted_must_be_known_and_not_denied() -> None:
    assert [a.name for a in allowed_actions(TINY, ("read_file", "exec"))] == ["read_file", "exec"]
    with pytest.raises(InputError, match="'delete_file' is no action"):
        allowed_actions(TINY, ("delete_file",))
    denied = Governor.model_validate({"rulings": {"exec": "deny"}})
    swarm = TINY.swarm.model_copy(update={"governor": denied})
    with pytest.raises(InputError, match="'exec' is denied by the governor"):
        allowed_actions(TINY.model_copy(update={"swarm": swarm}), ("exec",))
    names = [a.name for a in allowed_actions(TINY.model_copy(update={"swarm": swarm}))]
    assert "exec" not in names
    assert "http_request" in names


def test_a_profile_without_the_kinds_is_told_what_to_include() -> None:
    with pytest.raises(InputError, match=r'include = \["swarm"\]'):
        allowed_actions(catalog())


@pytest.mark.parametrize("profile", ["tiny", "laptop", "swarm"])
def test_the_profiles_that_come_with_uptier_have_what_the_daemon_asks(profile: str) -> None:
    assert len(allowed_actions(load_catalog(profile))) == len(ACTIONS)
