"""Picking a network of a finished run and exporting it, from a real small run."""

import dataclasses
import json
import re

import pytest
import torch

from evo_topo import build, count_params
from evo_topo.exporting import ONNX, PT2, SOURCE, WEIGHTS, read_export
from populations import evolve
from populations.config import ConfigError
from populations.publishing import export_survivor
from populations.records import LineageError
from populations.sources import find_founder
from populations.survivors import find_survivor, knee
from tests.runs import make_run
from tests.small import small_config, small_founder, small_task


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("run") / "small"
    config = small_config(run_dir, generations=1, founder_examples=4000, polish_examples=1024)
    return evolve(config, small_task(), founder=small_founder())


def test_a_survivor_is_exported_with_its_card(finished, tmp_path):
    exported = export_survivor(finished.run_dir, "best", tmp_path)
    files = {"genome.json", "config.json", "README.md", WEIGHTS, SOURCE, PT2, ONNX}
    assert {path.name for path in tmp_path.iterdir()} == files
    assert exported.errors.keys() == {WEIGHTS, SOURCE, PT2, ONNX}
    best = max(finished.front, key=lambda entry: entry.accuracy)
    card = (tmp_path / "README.md").read_text()
    assert f"| validation | {best.accuracy:.4f} |" in card
    assert f"| test, read once | {best.test_accuracy:.4f} |" in card
    assert f"| parameters | {best.params:,} |" in card
    assert card.startswith("---\nlibrary_name: evo_topo\n")
    steps = re.findall(r"^\| (\d+) \| \d+ \| (.*?) \|", card, re.MULTILINE)
    assert steps[0] == ("0", "founder")
    assert steps[-1][0] == str(best.id)
    settings = json.loads((tmp_path / "config.json").read_text())
    assert settings["mean"] == small_task().mean.tolist()
    genome, state = read_export(tmp_path)
    assert count_params(genome) == best.params
    assert build(genome).load_state_dict(state)


def test_picks(finished):
    ids = [entry.id for entry in finished.front]
    assert find_survivor(finished.run_dir, str(ids[0])).individual.id == ids[0]
    assert find_survivor(finished.run_dir, "knee").individual.id in ids
    with pytest.raises(ConfigError, match="expected knee, best or the id"):
        find_survivor(finished.run_dir, "worst")
    with pytest.raises(ConfigError, match="expected knee, best or the id"):
        find_survivor(finished.run_dir, "99999")
    with pytest.raises(LineageError, match="no run folder"):
        find_survivor(finished.run_dir / "none", "knee")


def test_a_run_that_is_not_finished_has_no_knee(tmp_path):
    make_run(tmp_path)
    with pytest.raises(ConfigError, match="is not finished"):
        find_survivor(tmp_path, "knee")
    with pytest.raises(ConfigError, match="did not survive: its weights are gone"):
        find_survivor(tmp_path, "0")


class Point:
    def __init__(self, flops, accuracy):
        self.flops = flops
        self.outcome = type("Outcome", (), {"accuracy": accuracy})


def test_the_knee_is_where_more_flops_begin_to_bring_little():
    front = [Point(100, 0.5), Point(200, 0.88), Point(400, 0.9), Point(1600, 0.91)]
    assert knee(front).flops == 200
    assert knee(front[:1]).flops == 100
    assert knee([Point(100, 0.5), Point(100, 0.5)]).flops == 100


def test_survivors_found_the_next_run(finished, tmp_path):
    task = small_task()
    entry = finished.front[0]
    founder = find_founder(f"{finished.run_dir}:{entry.id}", task.input_shape, 10)
    assert json.loads(founder.genome.to_json()) == entry.genome
    config = small_config(
        tmp_path / "next", generations=1, founder_examples=32, polish_examples=0, offspring=1, parents=1
    )
    tiny = dataclasses.replace(config.recipe, examples=32, learning_rate=1e-6)
    result = evolve(
        dataclasses.replace(config, recipe=tiny), task, founder=founder.genome, weights=founder.state
    )
    first = find_survivor(finished.run_dir, str(entry.id)).individual.outcome.accuracy
    assert result.founder.accuracy > first - 0.1  # it starts trained: chance is 0.1
    assert first > 0.3


def test_exports_found_the_next_run(finished, tmp_path):
    export_survivor(finished.run_dir, "knee", tmp_path / "out", onnx=False)
    founder = find_founder(str(tmp_path / "out"), (1, 8, 8), 10)
    survivor = find_survivor(finished.run_dir, "knee")
    assert founder.genome == survivor.genome
    model = build(founder.genome)
    model.load_state_dict(founder.state)
    assert torch.isfinite(model(torch.randn(2, 1, 8, 8))).all()


def test_an_export_writes_over_nothing_else(finished, tmp_path):
    before = (finished.run_dir / "config.json").read_text()
    with pytest.raises(ConfigError, match="expected a folder for the export, got the run folder"):
        export_survivor(finished.run_dir, "best", finished.run_dir, onnx=False)
    assert (finished.run_dir / "config.json").read_text() == before
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds a README\.md of something else"):
        export_survivor(finished.run_dir, "best", tmp_path, onnx=False)
    for _ in range(2):  # an earlier export is no obstacle
        export_survivor(finished.run_dir, "best", tmp_path / "out", onnx=False)
