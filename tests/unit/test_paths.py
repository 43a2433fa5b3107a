"""Names from a catalog that become names of files can lie nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from config.catalog import HubSource, Model, Name, PackageSource, Weights
from config.errors import WeightsError
from workers import wheels

FILE = {"kind": "file", "path": "/w.gguf"}
LOCAL = {"backend": "llama_cpp", "weights": {"file": "w.gguf", "source": FILE}}
BAD = [
    "", ".", "..", "/", "/etc/passwd", "../x", "a/../../x", "a/b", "a\\b", "..\\x", "C:\\x", "~/x",
    ".hidden", "-rf", " a", "a b", "a\n", "a\0b", "a\u202eb", "ä.gguf", "a%2f..", "x" * 300,
]  # fmt: skip
names = st.text(max_size=12) | st.text(alphabet="./\\~-a\0 \n{}:", max_size=12)


def test_every_bad_name_is_refused_wherever_a_catalog_may_write_one() -> None:
    for name in BAD:
        with pytest.raises(ValidationError, match="plain file name"):
            Weights.model_validate({"file": name, "source": FILE})
        with pytest.raises(ValidationError):
            Model.model_validate(LOCAL | {"adapters": {"good-v1": {}, name: {}}})
        with pytest.raises(ValidationError):
            TypeAdapter(Name).validate_python(name)


@pytest.mark.parametrize("name", ["partial", "prepared", "verified.json"])
def test_weights_cannot_take_the_place_of_what_uptier_keeps_there(name: str) -> None:
    with pytest.raises(ValidationError, match="plain file name"):
        Weights.model_validate({"file": name, "source": FILE})


@given(names)
def test_a_file_name_that_passes_lies_in_its_directory(name: str) -> None:
    directory = Path("/models")
    try:
        weights = Weights.model_validate({"file": name, "source": FILE})
    except ValidationError:
        return
    path = directory / weights.file
    assert path.parent == directory
    assert path.resolve() == path
    assert weights.file.isprintable()
    assert not weights.file.startswith((".", "-"))


@given(names)
def test_an_adapter_that_passes_lies_in_its_directory(name: str) -> None:
    try:
        model = Model.model_validate(LOCAL | {"adapters": {name: {}}})
    except ValidationError:
        return
    path = Path("/models") / next(iter(model.adapters))
    assert path.resolve() == path
    assert path.parent == Path("/models")


@given(package=names | st.just("toy{part}"), member=names | st.just("{part{part}:02d}"))
def test_a_member_that_passes_lies_in_its_package(package: str, member: str) -> None:
    given = {"package": package, "version": "1.0", "member": member, "parts": 2}
    try:
        parts = wheels.parts_of(PackageSource.model_validate(given))
    except (ValidationError, WeightsError):
        return
    for part in parts:
        path = Path("/package") / part.member
        assert path.resolve().is_relative_to("/package")
        assert not part.requirement.startswith("-")
        assert part.member.isprintable()


@pytest.mark.parametrize(
    "member",
    ["{other}", "{part.real}", "{part:099999999d}", "{0}", "{", "a}", "{{part}}",
     "{part{part}:02d}", "a\nb", "x" * 501],
)  # fmt: skip
def test_a_member_holds_its_number_and_no_other_format(member: str) -> None:
    with pytest.raises(ValidationError):
        PackageSource(package="toy", version="1.0", member=member)


@pytest.mark.parametrize("revision", ["..", "a/../b", "/main", "-x", "", "a b", "a?b", "a//b"])
def test_a_revision_leads_to_no_other_address(revision: str) -> None:
    with pytest.raises(ValidationError):
        HubSource(repo="org/model", revision=revision)


@pytest.mark.parametrize("revision", ["main", "v1.0", "refs/pr/1", "0123456789abcdef"])
def test_revisions_of_the_hub_are_fine(revision: str) -> None:
    assert HubSource(repo="org/model", revision=revision).revision == revision


@pytest.mark.parametrize("repo", ["..", "../..", "a/..", "a/b/c", "a"])
def test_a_repository_is_an_owner_and_a_name(repo: str) -> None:
    with pytest.raises(ValidationError):
        HubSource(repo=repo)
