import dataclasses
import json
from pathlib import Path

import pytest

from populations.config import CHANGEABLE, Config, ConfigError
from populations.presets import PRESETS
from tests.small import small_config


@pytest.mark.parametrize("name", PRESETS)
def test_json_round_trip(name):
    config = dataclasses.replace(PRESETS[name].config, run_dir=Path("runs/x"), minutes=2.5)
    assert Config.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("generations", 0),
        ("parents", 0),
        ("offspring", -1),
        ("ahead", -1),
        ("heirs", -1),
        ("workers", 0),
        ("threads", 0),
        ("minutes", -1.0),
        ("minutes", float("nan")),
        ("growth", 1.5),
        ("train_on", float("nan")),
        ("accuracy_floor", -0.1),
    ],
)
def test_out_of_range_is_refused_by_name(field, value):
    with pytest.raises(ConfigError, match=field):
        dataclasses.replace(PRESETS["digits"].config, **{field: value})


def test_neither_generations_nor_minutes_is_refused():
    with pytest.raises(ConfigError, match="generations or minutes"):
        dataclasses.replace(PRESETS["digits"].config, generations=None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"preset": "mnist"}',
        b"\xff",
        "[" * 5000,
        PRESETS["digits"].config.to_json().replace("0.05", "-1"),
        PRESETS["digits"].config.to_json().replace('"seed": 0', '"seed": "zero"'),
    ],
)
def test_bad_json_is_a_config_error(text):
    with pytest.raises(ConfigError, match="not a configuration"):
        Config.from_json(text)


@pytest.mark.parametrize(("asked", "slots", "ahead"), [(None, 2, 6), (None, 32, 32), (0, 32, 0), (9, 2, 9)])
def test_many_devices_are_kept_busy_unless_told_otherwise(asked, slots, ahead):
    config = dataclasses.replace(PRESETS["digits"].config, ahead=asked)
    assert config.for_slots(slots) == dataclasses.replace(config, ahead=ahead)


@pytest.mark.parametrize(
    ("slots", "polished", "heirs"), [(1, 8, 2), (2, 8, 2), (3, 8, 1), (4, 8, 0), (1, 2, 0)]
)
def test_heirs_take_no_more_of_a_timed_run_than_one_slot_has_time_for(slots, polished, heirs):
    config = small_config(heirs=None, polished=polished)
    assert config.for_slots(slots).heirs == 2
    timed = dataclasses.replace(config, minutes=15.0)
    assert timed.for_slots(slots).heirs == heirs
    assert dataclasses.replace(timed, heirs=7).for_slots(slots).heirs == 7


def test_resuming_may_change_only_what_does_not_breed():
    stored = PRESETS["digits"].config
    dataclasses.replace(stored, generations=99, workers=7, devices="cpu").check_resumable(stored)
    with pytest.raises(ConfigError, match="seed: the run was begun with 0"):
        dataclasses.replace(stored, seed=1).check_resumable(stored)
    assert {field.name for field in dataclasses.fields(Config)} >= CHANGEABLE


def test_nobody_is_taught_without_a_polish():
    with pytest.raises(ConfigError, match="distill: expected 0 where nobody is polished"):
        small_config(polish_examples=0, distill=0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: found.pop("outward"), "outward: missing"),
        (lambda found: found.update(generatons=5), "generatons: unknown"),
        (lambda found: found["recipe"].pop("flip"), "recipe.flip: missing"),
        (lambda found: found.update(recipe=3), "recipe"),
    ],
)
def test_a_configuration_is_read_as_it_was_written_or_not_at_all(change, message):
    found = json.loads(small_config().to_json())
    change(found)
    with pytest.raises(ConfigError, match=message):
        Config.from_json(json.dumps(found))


def test_seeds_are_those_that_torch_takes():
    with pytest.raises(ConfigError, match="seed: expected a whole number of 64 bits"):
        small_config(seed=2**64)
