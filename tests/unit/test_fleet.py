"""Which workers a profile needs, where they run, and when one that died is started again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from config.catalog import Catalog
from config.errors import ConfigurationError, StackError
from config.settings import Settings
from workers.children import Child, ProcessRecord, last_line
from workers.fleet import Fleet
from workers.gpus import Gpu, Placement, parse_listing, place, visible
from workers.launch import WorkerSpec, worker_environment, worker_specs
from workers.restarts import Restarts
from workers.stack_state import WorkerState

CPU_ONLY: tuple[Gpu, ...] = ()
CARD = Gpu(name="0", uuid="GPU-aa", memory_mb=12_000)
SECOND = Gpu(name="1", uuid="GPU-bb", memory_mb=24_000)


def catalog(**lanes: dict[str, Any]) -> Catalog:
    """A profile with these lanes: ``small`` takes 1,000 MB, ``large`` 10,000, ``remote`` none."""
    weights = {"file": "w.gguf", "source": {"kind": "file", "path": "/w.gguf"}}
    return Catalog.model_validate(
        {
            "profile": "test",
            "tiers": {"local": {"rank": 1}},
            "lanes": {name: {"tier": "local", **lane} for name, lane in lanes.items()},
            "models": {
                "small": {"backend": "llama_cpp", "weights": weights, "vram_mb": 1000},
                "large": {"backend": "llama_cpp", "weights": weights, "vram_mb": 10_000},
                "remote": {"backend": "openai"},
                "script": {"backend": "scripted"},
                "on-cpu": {"backend": "llama_cpp", "weights": weights, "gpu_layers": 0},
            },
            "kinds": {},
            "routing": {"unknown_kind_tier": "local", "critic_tier": "local"},
        }
    )


class StandIn(Child):
    """A worker that dies when the test says so."""

    def __init__(self, pid: int) -> None:
        self.record = ProcessRecord(pid=pid, created=0, command=("worker",))
        self.said = Path("worker.log")
        self.code: int | None = None
        self.killed = False

    def exit_code(self) -> int | None:
        return self.code

    def last_line(self) -> str:
        return "out of luck"

    def kill(self) -> None:
        self.killed = True


class Scene:
    """A fleet of one worker with a clock in the test's hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.children: list[StandIn] = []
        self.tokens: list[str] = []
        self.ready: set[str] = set()
        spec = WorkerSpec("one-1", "one", Placement())
        self.fleet = Fleet(
            [spec], self.spawn, lambda: self.ready, start_timeout_s=100, clock=lambda: self.now
        )

    def spawn(self, spec: WorkerSpec, token: str) -> StandIn:
        self.tokens.append(token)
        self.children.append(StandIn(len(self.children)))
        return self.children[-1]

    def look(self, now: float) -> WorkerState:
        self.now = now
        self.fleet.watch()
        return self.fleet.records()[0].state

    def serve(self) -> None:
        self.ready.add(self.tokens[-1])

    def die(self, code: int = 1) -> None:
        self.children[-1].code = code


def started() -> Scene:
    scene = Scene()
    scene.fleet.start()
    scene.serve()
    scene.fleet.wait_ready(lambda: None, lambda line: None)
    return scene


def test_restarts_wait_twice_as_long_each_time_up_to_half_a_minute() -> None:
    restarts = Restarts()
    delays = []
    for death in range(0, 700, 100):
        delays.append(restarts.delay(death))
        restarts.restarted(death)
    assert delays == [1, 2, 4, 8, 16, 30, 30]


def test_a_sixth_restart_within_a_minute_is_not_made() -> None:
    restarts = Restarts()
    for at in range(5):
        assert restarts.delay(at) is not None
        restarts.restarted(at)
    assert restarts.delay(59.9) is None
    assert restarts.delay(60.0) == 30


def test_becoming_ready_clears_the_account() -> None:
    restarts = Restarts()
    for at in range(5):
        restarts.restarted(at)
    restarts.ready()
    assert restarts.delay(6) == 1
    assert restarts.count == 5


def test_a_dead_worker_is_started_again_after_its_wait_with_a_new_token() -> None:
    scene = started()
    scene.die(-9)
    assert scene.look(10) is WorkerState.WAITING
    assert scene.look(10.5) is WorkerState.WAITING
    assert scene.look(11) is WorkerState.STARTING
    scene.serve()
    assert scene.look(11.5) is WorkerState.READY
    record = scene.fleet.records()[0]
    assert record.restarts == 1
    assert record.message == "worker one-1 was ended by SIGKILL: out of luck"
    assert len(set(scene.tokens)) == 2


def test_a_worker_that_dies_again_and_again_is_given_up_and_named() -> None:
    scene = started()
    now = 0.0
    while scene.fleet.failure() is None:
        assert now < 120
        scene.die()
        now += 0.5
        scene.look(now)
    assert len(scene.children) == 6
    assert "one-1" in (scene.fleet.failure() or "")
    assert "out of luck" in (scene.fleet.failure() or "")
    assert scene.look(now + 1000) is WorkerState.FAILED


def test_a_wrong_configuration_is_not_tried_again() -> None:
    scene = started()
    scene.die(2)
    assert scene.look(1) is WorkerState.FAILED
    assert scene.look(100) is WorkerState.FAILED
    assert len(scene.children) == 1


def test_a_worker_that_never_gets_ready_is_ended_and_tried_again() -> None:
    scene = started()
    scene.die()
    scene.look(1)
    assert scene.look(2) is WorkerState.STARTING
    assert scene.look(101) is WorkerState.STARTING
    assert scene.look(103) is WorkerState.WAITING
    assert scene.children[-1].killed


def test_nothing_is_started_once_the_fleet_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.fleet.end_children", lambda children: None)
    scene = started()
    scene.die()
    scene.look(1)
    scene.fleet.stop()
    scene.look(10)
    assert len(scene.children) == 1


def test_a_death_while_starting_is_an_error_with_name_code_and_last_line() -> None:
    scene = Scene()
    scene.fleet.start()
    scene.die(3)
    with pytest.raises(StackError, match="worker one-1 ended with exit code 3: out of luck"):
        scene.fleet.wait_ready(lambda: None, lambda line: None)


def test_a_wrong_configuration_while_starting_speaks_for_itself() -> None:
    scene = Scene()
    scene.fleet.start()
    scene.die(2)
    with pytest.raises(ConfigurationError, match="^out of luck$"):
        scene.fleet.wait_ready(lambda: None, lambda line: None)


def test_a_start_that_takes_too_long_names_who_is_late() -> None:
    scene = Scene()
    scene.fleet.start()

    def pass_time() -> None:
        scene.now += 60

    with pytest.raises(StackError, match="one-1 did not become ready within 100 s"):
        scene.fleet.wait_ready(pass_time, lambda line: None)


def test_there_is_a_worker_for_each_lane_and_number_and_one_for_quality() -> None:
    profile = catalog(a={"model": "small"}, b={"model": "remote", "workers": 2})
    specs = worker_specs(profile, place(profile, CPU_ONLY, cores=4))
    assert [spec.name for spec in specs] == ["a-1", "b-1", "b-2", "quality-1"]
    assert [spec.lane for spec in specs] == ["a", "b", "b", "quality"]


def test_on_the_cpu_a_model_gets_its_threads_and_a_remote_one_a_single_thread() -> None:
    profile = catalog(
        a={"model": "small"}, b={"model": "small", "threads": 2}, c={"model": "remote"}
    )
    placed = place(profile, CPU_ONLY, cores=4)
    assert [placed[name, 1].threads for name in "abc"] == [4, 2, 1]
    assert placed["a", 1].environment() == {"UPTIER_THREADS": "4", "OMP_NUM_THREADS": "4"}


def test_a_script_takes_no_card() -> None:
    placed = place(catalog(one={"model": "script"}), [CARD], cores=2)
    assert placed["one", 1].gpu is None


def test_a_lane_with_a_gpu_is_pinned_to_it_and_others_do_not_see_any() -> None:
    profile = catalog(a={"model": "small", "gpu": 1}, b={"model": "remote"})
    specs = worker_specs(profile, place(profile, (CARD, SECOND), cores=4))
    seen = {spec.name: spec.placement.environment()["CUDA_VISIBLE_DEVICES"] for spec in specs}
    assert seen == {"a-1": "1", "b-1": "", "quality-1": ""}


def test_models_without_a_card_of_their_own_go_where_there_is_room() -> None:
    profile = catalog(
        a={"model": "large", "gpu": 0}, b={"model": "large", "workers": 3}, c={"model": "on-cpu"}
    )
    placed = place(profile, (CARD, SECOND), cores=4)
    assert placed["a", 1].gpu == "0"
    assert [placed["b", number].gpu for number in (1, 2, 3)] == ["1", "1", None]
    assert placed["c", 1].gpu is None


def test_a_pinned_placement_that_does_not_fit_is_refused_with_its_sum() -> None:
    profile = catalog(a={"model": "large", "gpu": 0}, b={"model": "small", "gpu": 0})
    with pytest.raises(ConfigurationError, match=r"11999 MB.*a 10500 \+ b 1500 = 12000") as caught:
        place(profile, (Gpu("0", memory_mb=11_999),), cores=4)
    assert "\n" not in str(caught.value)


def test_a_card_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"lanes\.a\.gpu = 2"):
        place(catalog(a={"model": "small", "gpu": 2}), (CARD, SECOND), cores=4)


def test_without_a_listing_the_catalog_names_the_card() -> None:
    profile = catalog(a={"model": "small", "gpu": 1}, b={"model": "small"})
    placed = place(profile, None, cores=4)
    assert placed["a", 1].gpu == "1"
    assert placed["b", 1].gpu is None


def test_a_listing_is_read_also_where_a_card_does_not_tell_its_memory() -> None:
    listing = "0, GPU-aa, 12000\n1, GPU-bb, [N/A]\n"
    assert parse_listing(listing) == (CARD, Gpu("1", "GPU-bb", None))


@pytest.mark.parametrize(
    ("chosen", "names"),
    [(None, "01"), ("1,0", "10"), ("GPU-bb", "1"), ("", ""), ("1,7,0", "1"), ("-1", "")],
)
def test_cuda_visible_devices_chooses_and_orders(chosen: str | None, names: str) -> None:
    left = visible((CARD, SECOND), chosen)
    assert left is not None
    assert "".join(gpu.name for gpu in left) == names


def test_without_a_listing_cuda_visible_devices_stands() -> None:
    assert visible(None, None) is None
    assert visible(None, "") == ()
    assert visible(None, "2,3") == (Gpu("2"), Gpu("3"))


def test_a_worker_gets_the_settings_in_force_and_its_name(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, models_dir=tmp_path / "m", lease_s=7, profile="p.toml")
    spec = WorkerSpec("a-1", "a", Placement(threads=2))
    env = worker_environment(spec, "token", settings, "redis://:secret@127.0.0.1:1/0")
    assert env["UPTIER_LEASE_S"] == "7.0"
    assert env["UPTIER_PROFILE"] == str(Path("p.toml").absolute())
    assert env["UPTIER_DATA_DIR"] == str(tmp_path)
    assert env["UPTIER_MODELS_DIR"] == str(tmp_path / "m")
    assert env["UPTIER_BROKER_URL"] == "redis://:secret@127.0.0.1:1/0"
    assert (env["UPTIER_WORKER_NAME"], env["UPTIER_WORKER_TOKEN"]) == ("a-1", "token")
    assert env["UPTIER_PARENT_PIPE"] == "1"
    assert env["PYTHONSAFEPATH"] == "1"


def test_the_last_line_of_a_log_is_the_one_that_says_something(tmp_path: Path) -> None:
    said = tmp_path / "log"
    said.write_text(
        "started\n\x1b[31mTraceback (most recent call last):\x1b[0m\n  File 'x'\n"
        "ValueError: \x1b[1mno\x1b[0m\n    ^^^\n\n"
    )
    assert last_line(said) == "ValueError: no"
    assert last_line(said, offset=said.stat().st_size) == ""
    assert last_line(tmp_path / "missing") == ""
