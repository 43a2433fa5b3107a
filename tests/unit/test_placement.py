"""Where workers go: what fits, what is shared, what is spread, and what is refused with its sum."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.catalog import CacheType, Catalog, Shape
from config.errors import ConfigurationError
from config.load import load_catalog
from config.settings import Settings
from tests.unit.gguf_file import write_gguf
from workers.engine.limits import shape
from workers.gpus import Gpu, Hardware
from workers.launch import worker_specs
from workers.needs import Need, cells, lane_needs, need, weights_mb
from workers.placement import Plan, place

GB = 1024
OVERHEAD = 512
NO_CARD = Hardware((), 4)
CARD = Gpu(name="0", uuid="GPU-aa", memory_mb=12_000)
SECOND = Gpu(name="1", uuid="GPU-bb", memory_mb=24_000)
BOTH = Hardware((CARD, SECOND), 4)
WEIGHTS = {"file": "w.gguf", "source": {"kind": "file", "path": "/w.gguf"}}
SERVED = {"backend": "llama_server", "base_url": "http://127.0.0.1:8080", "local": True}


def catalog(models: dict[str, dict[str, Any]] | None = None, **lanes: dict[str, Any]) -> Catalog:
    """A profile with these lanes: ``small`` takes 1,000 MB, ``large`` 10,000, ``remote`` none."""
    return Catalog.model_validate(
        {
            "profile": "test",
            "tiers": {"local": {"rank": 1}},
            "lanes": {name: {"tier": "local", **lane} for name, lane in lanes.items()},
            "models": {
                "small": {"backend": "llama_cpp", "weights": WEIGHTS, "vram_mb": 1000},
                "large": {"backend": "llama_cpp", "weights": WEIGHTS, "vram_mb": 10_000},
                "remote": {"backend": "openai"},
                "script": {"backend": "scripted"},
                "unknown": {"backend": "llama_cpp", "weights": WEIGHTS},
                "on-cpu": {"backend": "llama_cpp", "weights": WEIGHTS, "gpu_layers": 0},
                **(models or {}),
            },
            "providers": {"one": SERVED, "two": SERVED},
            "kinds": {},
            "routing": {"unknown_kind_tier": "local", "critic_tier": "local"},
        }
    )


def placed(profile: Catalog, hardware: Hardware) -> Plan:
    """The plan where no file of weights is here."""
    needs = {
        name: need(profile.models[lane.model], lane, None, None)
        for name, lane in profile.lanes.items()
    }
    return place(profile, hardware, needs)


def cards(plan: Plan) -> dict[str, int | None]:
    return {seat.worker: seat.card for seat in plan.seats}


def refused(profile: Catalog, hardware: Hardware) -> str:
    with pytest.raises(ConfigurationError) as caught:
        placed(profile, hardware)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What is needed.


def test_a_cache_is_two_times_layers_heads_size_bytes_and_tokens() -> None:
    model = load_catalog("gpu").models["qwen2.5-14b"].model_copy(update={"context": 12_288})
    lane = load_catalog("gpu").lanes["tier2.plus"]
    found = need(model, lane, None, None)
    assert found is not None
    # 2 x 48 x 8 x 128 x 2 bytes = 192 KB a token, of 16,384 tokens.
    assert found.cache_mb == 3 * GB
    assert found.weights_mb == pytest.approx(8_988_110_272 / 2**20, rel=0.02)
    assert found.total_mb == found.weights_mb + 3 * GB + OVERHEAD


@pytest.mark.parametrize(
    ("kind", "share"), [(None, 1), (CacheType.F32, 2), (CacheType.Q8_0, 34 / 64)]
)
def test_a_servers_cache_goes_by_its_type_and_its_slots(kind: CacheType, share: float) -> None:
    shaped = {"shape": {"layers": 16, "kv_heads": 4, "head_size": 128}, "weights_mb": 1000}
    served = {"backend": "llama_server", "context": 8192, "cache_type": kind, **shaped}
    profile = catalog({"served": served}, a={"model": "served", "slots": 2})
    found = need(profile.models["served"], profile.lanes["a"], None, None)
    assert found is not None
    assert found.cache_mb == 512 * share


def test_the_engine_shares_one_context_among_all_slots() -> None:
    model = load_catalog("laptop").models["smollm2-135m"]
    assert cells(model, slots=1) == cells(model, slots=8) == model.context + 4096


def test_weights_are_the_file_or_parameters_times_bits() -> None:
    model = load_catalog("gpu").models["qwen2.5-7b"]
    assert weights_mb(model, 3 << 20) == 3
    reckoned = weights_mb(model, None)
    assert reckoned == pytest.approx(4_683_074_240 / 2**20, rel=0.02)  # the file's true size


def test_the_catalogs_word_goes_before_the_formula_and_vram_stands_in_for_it() -> None:
    model = load_catalog("zeus").models["qwen2.5-coder-14b"]
    lane = load_catalog("zeus").lanes["tier2"]
    assert need(model, lane, 9 << 30, None) == Need(8704, 2560)
    bare = model.model_copy(update={"weights_mb": None, "vram_mb": 5000})
    assert need(bare, lane, 9 << 30, None) == Need(9 << 10, 2560)
    unshaped = model.model_copy(update={"cache_mb": None, "vram_mb": 5000})
    assert need(unshaped, lane, None, None) == Need(5000)
    assert need(unshaped.model_copy(update={"vram_mb": None}), lane, None, None) is None


def test_some_layers_take_their_share() -> None:
    model = load_catalog("gpu").models["llama-3.1-8b"]
    lane = load_catalog("gpu").lanes["tier2"]
    whole = need(model, lane, None, None)
    some = need(model.model_copy(update={"gpu_layers": 11}), lane, None, None)
    assert whole is not None
    assert some is not None
    assert some.weights_mb == pytest.approx(whole.weights_mb / 3, abs=1)


def test_the_shape_of_a_file_is_read_from_it(tmp_path: Path) -> None:
    path = tmp_path / "w.gguf"
    write_gguf(path)
    weights = f'file = "w.gguf"\nsource = {{ kind = "file", path = "{path}" }}'
    profile = tmp_path / "p.toml"
    profile.write_text(f"""
[tiers.t]
rank = 1
[lanes.a]
tier = "t"
model = "m"
[models.m]
backend = "llama_cpp"
[models.m.weights]
{weights}
[routing]
unknown_kind_tier = "t"
critic_tier = "t"
[kinds]
""")
    settings = Settings(profile=str(profile), data_dir=tmp_path, models_dir=tmp_path)
    found = lane_needs(settings)["a"]
    assert found is not None
    # One layer, two heads of 32, in 16 bits, 6,144 tokens: 256 bytes each.
    assert found.cache_mb == 2
    assert found.weights_mb == -(-path.stat().st_size // 2**20)


def test_a_shape_is_unknown_where_layers_differ() -> None:
    told = {
        "block_count": "2", "attention.head_count": "8", "embedding_length": "512",
        "attention.head_count_kv": "[4, 0]",
    }  # fmt: skip
    assert shape(told.get) is None
    assert shape({**told, "attention.head_count_kv": "4"}.get) == Shape(
        layers=2, kv_heads=4, head_size=64
    )


# Who goes where.


def test_the_documents_two_cards_take_both_specialists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test")
    cards_of_12 = Hardware((Gpu("0", memory_mb=12 * GB), Gpu("1", memory_mb=12 * GB)), 8)
    plan = placed(load_catalog("zeus"), cards_of_12)
    assert cards(plan) == {"tier2-1": 0, "tier2.math-1": 1, "tier3-1": None}
    assert [plan.needed_mb(card) / GB for card in (0, 1)] == [11.5, 7.5]
    assert [plan.room_mb(card) / GB for card in (0, 1)] == [0.5, 4.5]


def test_a_70b_is_refused_with_the_sum() -> None:
    big = {
        "backend": "llama_cpp", "parameters_b": 70.6, "context": 8192,
        "weights": {**WEIGHTS, "file": "Llama-3.3-70B-Instruct-IQ2_XS.gguf"},
        "shape": {"layers": 80, "kv_heads": 8, "head_size": 128},
    }  # fmt: skip
    cards_of_12 = Hardware((Gpu("0", memory_mb=12 * GB), Gpu("1", memory_mb=12 * GB)), 8)
    said = refused(catalog({"70b": big}, a={"model": "70b"}), cards_of_12)
    assert "21.3 weights + 3.8 cache + 0.3 context + 0.2 workspace) = 25.5 GB" in said
    assert "GPU 0, has 12.0 GB" in said
    pinned = refused(catalog({"70b": big}, a={"model": "70b", "gpu": 1}), cards_of_12)
    assert "GPU 1 has 12.0 GB" in pinned
    assert "= 25.5 GB" in pinned


def test_a_lane_spreads_over_cards_and_another_shares_them() -> None:
    four = Hardware(tuple(Gpu(str(n), memory_mb=16 * GB) for n in range(4)), 8)
    profile = catalog(a={"model": "small", "workers": 4}, b={"model": "large", "workers": 2})
    plan = placed(profile, four)
    assert [plan.seat(f"b-{n}").card for n in (1, 2)] == [0, 1]  # type: ignore[union-attr]
    assert sorted(plan.seat(f"a-{n}").card for n in (1, 2, 3, 4)) == [0, 1, 2, 3]  # type: ignore


def test_a_lane_with_a_gpu_is_pinned_to_it_and_others_do_not_see_any() -> None:
    profile = catalog(a={"model": "small", "gpu": 1}, b={"model": "remote"})
    specs = worker_specs(placed(profile, BOTH))
    seen = {spec.name: spec.placement.environment()["CUDA_VISIBLE_DEVICES"] for spec in specs}
    assert seen == {"a-1": "1", "b-1": "", "quality-1": ""}


def test_a_slice_of_a_card_is_pinned_by_its_name() -> None:
    slices = tuple(Gpu(f"MIG-{n}", f"MIG-{n}", 9_856) for n in (1, 2))
    plan = placed(catalog(a={"model": "small", "gpu": 1}), Hardware(slices, 4))
    assert plan.seats[0].placement.environment()["CUDA_VISIBLE_DEVICES"] == "MIG-2"


def test_there_is_a_worker_for_each_lane_and_number_and_one_for_quality() -> None:
    profile = catalog(a={"model": "small"}, b={"model": "remote", "workers": 2})
    specs = worker_specs(placed(profile, NO_CARD))
    assert [spec.name for spec in specs] == ["a-1", "b-1", "b-2", "quality-1"]
    assert [spec.lane for spec in specs] == ["a", "b", "b", "quality"]


def test_what_finds_no_room_is_refused_unless_it_may_run_on_the_cpu() -> None:
    lanes: dict[str, Any] = {
        "a": {"model": "large", "gpu": 0},
        "b": {"model": "large", "workers": 3},
        "c": {"model": "on-cpu"},
    }
    assert "b-3 (9.8 weights and cache" in refused(catalog(**lanes), BOTH)
    lanes["b"]["cpu_too"] = True
    plan = placed(catalog(**lanes), BOTH)
    assert cards(plan) == {"a-1": 0, "b-1": 1, "b-2": 1, "b-3": None, "c-1": None}
    third = plan.seat("b-3")
    assert third is not None
    assert third.placement.environment()["CUDA_VISIBLE_DEVICES"] == ""
    assert third.note == "no card has 10.3 GB left"


def test_a_pinned_placement_that_does_not_fit_is_refused_with_its_sum() -> None:
    profile = catalog(a={"model": "large", "gpu": 0}, b={"model": "small", "gpu": 0})
    said = refused(profile, Hardware((Gpu("0", memory_mb=12_023),), 4))
    assert "GPU 0 has 11.7 GB" in said
    assert "a-1 (9.8 weights and cache + 0.3 context + 0.2 workspace)" in said
    assert "= 11.7 GB" in said
    placed(profile, Hardware((Gpu("0", memory_mb=12_024),), 4))


def test_a_card_that_is_not_there_is_refused() -> None:
    assert "lanes.a.gpu = 2" in refused(catalog(a={"model": "small", "gpu": 2}), BOTH)


def test_what_nobody_knows_is_not_put_on_a_card() -> None:
    said = refused(catalog(a={"model": "unknown"}), BOTH)
    assert "nobody knows what unknown takes" in said
    assert cards(placed(catalog(a={"model": "unknown"}), NO_CARD)) == {"a-1": None}


def test_what_others_use_of_a_card_is_not_planned_with() -> None:
    busy = Hardware((Gpu("0", memory_mb=12_000, taken_mb=3_000), Gpu("1", memory_mb=10_600)), 4)
    assert cards(placed(catalog(a={"model": "large"}), busy)) == {"a-1": 1}
    said = refused(catalog(a={"model": "large", "gpu": 0}), busy)
    assert "11.7 GB less 2.9 GB in use by others" in said


def test_a_server_that_is_up_already_does_not_count_twice() -> None:
    served = {"backend": "llama_server", "provider": "one", "vram_mb": 10_000}
    profile = catalog({"served": served}, a={"model": "served", "gpu": 0, "workers": 2})
    up = Hardware((Gpu("0", memory_mb=12_000, taken_mb=10_400),), 4)
    plan = placed(profile, up)
    assert plan.room_mb(0) == 12_000 - 10_000 - OVERHEAD
    assert [seat.placement.gpu for seat in plan.seats] == [None, None]


def test_two_servers_on_one_port_are_refused() -> None:
    models = {
        "x": {"backend": "llama_server", "provider": "one"},
        "y": {"backend": "llama_server", "provider": "two"},
    }
    said = refused(catalog(models, a={"model": "x"}, b={"model": "y"}), NO_CARD)
    assert "lanes.a (x) and lanes.b (y) are both served at 127.0.0.1:8080" in said
    placed(catalog(models, a={"model": "x"}, b={"model": "x"}), NO_CARD)


def test_without_a_listing_the_catalog_names_the_card() -> None:
    profile = catalog(a={"model": "small", "gpu": 1}, b={"model": "small"})
    plan = placed(profile, Hardware(None, 4))
    assert [seat.placement.gpu for seat in plan.seats] == ["1", None]


def test_a_card_that_is_lent_takes_nobody() -> None:
    profile = catalog(a={"model": "small", "workers": 2})
    plan = placed(profile, BOTH)
    assert sorted(cards(plan).values()) == [0, 1]  # type: ignore[type-var]
    assert plan.lending([0]).lent == {0}


def test_a_script_takes_no_card_unless_a_placement_is_rehearsed() -> None:
    assert cards(placed(catalog(one={"model": "script"}), BOTH)) == {"one-1": None}
    acting = {"acting": {"backend": "scripted", "vram_mb": 8000}}
    assert cards(placed(catalog(acting, one={"model": "acting"}), BOTH)) == {"one-1": 1}


@st.composite
def profiles(draw: st.DrawFn) -> Catalog:
    count = draw(st.integers(1, 5))
    models: dict[str, dict[str, Any]] = {}
    lanes: dict[str, Any] = {}
    for index in range(count):
        size = draw(st.integers(0, 30_000))
        models[f"m{index}"] = {"backend": "llama_cpp", "weights": WEIGHTS, "vram_mb": size}
        lanes[f"l{index}"] = {
            "model": f"m{index}",
            "workers": draw(st.integers(1, 4)),
            "gpu": draw(st.none() | st.integers(0, 3)),
            "cpu_too": draw(st.booleans()),
        }
    return catalog(models, **lanes)


@given(
    profile=profiles(),
    gpus=st.lists(st.tuples(st.integers(1, 40_000), st.integers(0, 4_000)), max_size=4),
)
def test_no_card_is_ever_asked_for_more_than_it_has(
    profile: Catalog, gpus: list[tuple[int, int]]
) -> None:
    hardware = Hardware(
        tuple(Gpu(str(n), memory_mb=mb, taken_mb=used) for n, (mb, used) in enumerate(gpus)), 8
    )
    try:
        plan = placed(profile, hardware)
    except ConfigurationError:
        return
    for card, gpu in enumerate(hardware.gpus or ()):
        assert gpu.memory_mb is not None
        if plan.on(card):
            assert plan.needed_mb(card) + gpu.taken_mb <= gpu.memory_mb
    wanted = Counter({name: lane.workers for name, lane in profile.lanes.items()})
    assert Counter(seat.lane for seat in plan.seats) == wanted
    for seat in plan.seats:
        pinned = profile.lanes[seat.lane].gpu
        assert pinned is None or not gpus or seat.card == pinned
        assert seat.card is not None or not gpus or profile.lanes[seat.lane].cpu_too


# Without a card.


def test_on_few_cores_models_take_turns_on_all_of_them() -> None:
    profile = catalog(a={"model": "small"}, b={"model": "small"}, c={"model": "remote"})
    plan = placed(profile, Hardware((), 4))
    assert [seat.placement.threads for seat in plan.seats] == [4, 4, 1]
    assert plan.seats[0].placement.environment() == {"UPTIER_THREADS": "4", "OMP_NUM_THREADS": "4"}


def test_many_cores_are_divided_and_each_model_has_its_own() -> None:
    profile = catalog(
        a={"model": "small"}, b={"model": "small", "workers": 2}, c={"model": "small", "threads": 5}
    )
    plan = placed(profile, Hardware((), 34))
    assert [seat.placement.threads for seat in plan.seats] == [10, 10, 9, 5]
    assert plan.seats[0].placement.environment()["UPTIER_OWN_CORES"] == "1"
    assert not any(s.placement.own_cores for s in placed(profile, Hardware((), 28)).seats)


def test_lanes_that_name_threads_which_fit_take_no_turns() -> None:
    lanes = {"a": {"model": "small", "threads": 1}, "b": {"model": "small", "threads": 1}}
    assert all(s.placement.own_cores for s in placed(catalog(**lanes), Hardware((), 2)).seats)
    lanes["b"]["threads"] = 2
    assert not any(s.placement.own_cores for s in placed(catalog(**lanes), Hardware((), 2)).seats)


def test_models_that_exceed_the_machines_memory_are_refused_with_the_sum() -> None:
    profile = catalog(a={"model": "large"}, b={"model": "small", "workers": 3})
    assert "large 9.8 + small 1.0 + caches 0.0 = 10.7 GB" in refused(
        profile, Hardware((), 4, memory_mb=10_999)
    )
    placed(profile, Hardware((), 4, memory_mb=11_000))
