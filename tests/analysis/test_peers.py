"""The comparison with other searches: fair parts, honest sums, cells that are kept."""

import dataclasses
import itertools
import time
from pathlib import Path

import msgspec
import pytest
from safetensors.torch import load_file

from analysis.benchmarks.peers import __main__ as peers
from analysis.benchmarks.peers import ours, pruning, running
from analysis.benchmarks.peers.cells import (
    Cell,
    Clock,
    Point,
    Record,
    preset_digest,
    read_record,
    record_path,
    write_record,
)
from analysis.benchmarks.peers.report import (
    chosen_within,
    hypervolume_over_time,
    peers_table,
    reported_hypervolume,
    summarise,
)
from analysis.benchmarks.peers.space import FOUNDERS, Stage, staged_net
from analysis.benchmarks.rival import module_macs
from evo_topo.cost import count_macs
from evo_topo.evaluation import evaluate, reestimate_batchnorm
from evo_topo.genome import Genome
from evo_topo.ops import Conv
from evo_topo.phenotype import build
from evo_topo.task_file import save_task
from evo_topo.training import train
from populations.founders import conv_net
from populations.orders import DATA, weights_path
from populations.presets import PRESETS
from tests.small import small_config, small_founder, small_task

MACHINE = running.this_machine()


def record_of(points, method="evo_topo", seed=1, minutes=15.0):
    cell = Cell("digits", method, seed, minutes)
    return Record(
        cell, MACHINE, 2, 1_000_000, {}, 60 * minutes, points, 90 * minutes, preset_digest("digits", method)
    )


# Validation prefers 200 k to 100 k, and then the test split does not.
POINTS = [
    Point(10.0, 900_000, 9, 0.70),
    Point(20.0, 200_000, 5, 0.90, 0.80),
    Point(20.0, 100_000, 4, 0.80, 0.85),
    Point(30.0, 400_000, 6, 0.85, 0.99),
]


def test_validation_alone_chooses():
    assert chosen_within(99_999, POINTS) is None
    assert [chosen_within(budget, POINTS).test_accuracy for budget in (1e5, 2e5, 5e5)] == [0.85, 0.80, 0.80]


@pytest.mark.parametrize("least", [0.0, 0.05, 0.25, 0.5])
def test_the_reported_hypervolume_averages_over_budgets(least):
    budgets = [1000 * k + 500 for k in range(round(1000 * least), 1000)]
    chosen = [chosen_within(budget, record_of(POINTS).reported) for budget in budgets]
    mean = sum(point.test_accuracy if point else 0.0 for point in chosen) / len(budgets)
    assert reported_hypervolume(record_of(POINTS), least) == pytest.approx(mean)
    assert reported_hypervolume(record_of([Point(1.0, 1_000_000, 1, 0.9, 0.9)])) == 0


def test_by_octaves_each_halving_counts_as_much():
    budgets = [1e6 * 2 ** (-(k + 0.5) / 250) for k in range(1000)]  # four halvings
    chosen = [chosen_within(budget, record_of(POINTS).reported) for budget in budgets]
    mean = sum(point.test_accuracy if point else 0.0 for point in chosen) / len(budgets)
    assert reported_hypervolume(record_of(POINTS), 1 / 16, by_octaves=True) == pytest.approx(mean, abs=1e-3)


def test_the_curve_rises_with_what_is_known():
    volumes = [0.7 * 0.1, 0.8 * 0.1 + 0.9 * 0.8]
    curve = hypervolume_over_time(record_of(POINTS))
    assert [seconds for seconds, _ in curve] == [0, 10, 20]  # what came later lies behind the front
    assert [volume for _, volume in curve] == pytest.approx([0, *volumes])


def test_the_table_has_a_row_per_seed_and_the_means():
    summary = summarise([record_of(POINTS, seed=1), record_of(POINTS[1:2], seed=2)])
    heading, first, second, mean = [
        line.split() for line in peers_table([summary], ["a machine"]).splitlines()[2:6]
    ]
    assert heading[:6] == ["digits,", "15", "min", "seed", "0.01", "M"]
    assert first[:7] == ["evo_topo", "1", "-", "-", "-", "0.850", "0.800"]
    assert second[:7] == ["evo_topo", "2", "-", "-", "-", "-", "0.800"]
    assert mean[:7] == ["evo_topo", "mean", "-", "-", "-", "-", "0.800"]
    volumes = [reported_hypervolume(record_of(points)) for points in (POINTS, POINTS[1:2])]
    assert [float(row[10]) for row in (first, second)] == pytest.approx(volumes, abs=1e-4)
    assert float(mean[10]) == pytest.approx(sum(volumes) / 2, abs=1e-4)
    assert mean[-3:] == ["2", "900", "75%"]


def test_the_figure_holds_every_method():
    records = [record_of(POINTS, method, seed) for method in running.METHODS for seed in (1, 2)]
    figure = peers.draw_peers([*records, record_of(POINTS[:1], "optuna", 3)])  # who reports nothing, too
    figure.draw_without_rendering()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(running.METHODS)


def test_the_grid_compares_controls_at_equal_length():
    cells = peers.cells_of(["digits"], ["evo_topo", "optuna", "random"], [1, 2], 15, 5)
    assert [(c.method, c.minutes) for c in cells if c.seed == 2] == [
        ("evo_topo", 15),
        ("optuna", 15),
        ("random", 5),
        ("evo_topo", 5),
    ]
    assert len(peers.cells_of(["digits"], ["evo_topo", "random"], [1], 5, 5)) == 2
    assert len({cell.name for cell in cells}) == len(cells)


def test_finished_cells_are_not_run_again(tmp_path: Path, monkeypatch, capsys) -> None:
    ran = []

    def run_cell(cell, out):
        ran.append(cell.method)
        if cell.method == "evo_topo" or len(ran) > 2:
            write_record(record_path(out, cell), record_of(POINTS, cell.method, cell.seed, cell.minutes))
            return True
        return False

    monkeypatch.setattr(peers, "run_cell", run_cell)
    options = ["--data", "digits", "--methods", "evo_topo", "prunes-only", "--seeds", "1"]
    options += ["--control-minutes", "15", "--out", str(tmp_path)]
    with pytest.raises(SystemExit):
        peers.command(options)
    out, err = capsys.readouterr()
    assert "these cells failed" in err
    assert "evo_topo" in out
    peers.command(options)
    assert ran == ["evo_topo", "prunes-only", "prunes-only"]
    document = msgspec.json.decode((tmp_path / "peers.json").read_bytes())
    assert [summary["method"] for summary in document["summaries"]] == ["evo_topo", "prunes-only"]
    assert (tmp_path / "figures" / "peers-digits-15min.png").is_file()
    assert "versions of the code" not in capsys.readouterr().out
    path = record_path(tmp_path, Cell("digits", "evo_topo", 1, 15.0))
    write_record(path, msgspec.structs.replace(read_record(path), code="another"))
    peers.command(options)
    assert "2 versions of the code" in capsys.readouterr().out


def test_damaged_records_are_refused(tmp_path):
    path = record_path(tmp_path, Cell("digits", "evo_topo", 1, 5))
    assert read_record(path) is None
    write_record(path, record_of(POINTS))
    assert read_record(path) == record_of(POINTS)
    write_record(path, msgspec.structs.replace(record_of(POINTS), preset="another"))
    with pytest.raises(ValueError, match="preset has changed"):
        read_record(path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match="remove it"):
        read_record(path)


@pytest.mark.parametrize("method", ["torch-pruning", "optuna"])
def test_cells_of_rivals_outlive_changes_that_do_not_reach_them(method, monkeypatch):
    digests = [preset_digest("digits", name) for name in ("evo_topo", method)]
    preset = PRESETS["digits"]
    config = dataclasses.replace(preset.config, screened=7)
    monkeypatch.setitem(PRESETS, "digits", preset._replace(config=config))
    assert preset_digest("digits", "evo_topo") != digests[0]
    assert preset_digest("digits", method) == digests[1]
    recipe = dataclasses.replace(config.recipe, batch_size=32)
    monkeypatch.setitem(PRESETS, "digits", preset._replace(config=dataclasses.replace(config, recipe=recipe)))
    assert preset_digest("digits", method) != digests[1]


def test_a_missing_package_is_named(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(running, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        peers.command(["--methods", "optuna", "torch-pruning", "evo_topo", "--out", str(tmp_path)])
    assert "pip install optuna torch-pruning" in capsys.readouterr().err


@pytest.mark.parametrize("data", FOUNDERS)
def test_the_space_holds_the_founder(data):
    founder = PRESETS[data].founder()
    genome = staged_net(founder.input_shape, founder.num_classes, FOUNDERS[data])
    assert genome.fingerprint == founder.fingerprint


@pytest.mark.parametrize(("separable", "late"), [*itertools.product([False, True], repeat=2)])
def test_stages_are_built_as_they_say(separable, late):
    stages = [Stage(2, 4, 5, 1, late, separable), Stage(0, 9), Stage(2, 6, 3, 2, late, separable)]
    genome = staged_net((1, 8, 8), 10, stages)
    convs = [node for node in genome.nodes if isinstance(node.op, Conv)]
    assert [conv.op.out_channels for conv in convs if conv.op.groups == 1] == [4, 4, 6, 6]
    assert sum(conv.op.groups > 1 for conv in convs) == 3 * separable
    (halved,) = [
        i for i, conv in enumerate(c for c in convs if c.op.kernel != (1, 1)) if conv.op.stride == (2, 2)
    ]
    assert halved == (3 if late else 2)
    task = small_task()
    assert module_macs(build(genome), task.normalise(task.train.inputs[:1])) == count_macs(genome)


@pytest.mark.parametrize("data", FOUNDERS)
def test_splits_alone_start_from_a_thin_founder(data):
    preset = PRESETS[data]
    founder = preset.founder()
    config, thin = ours.splits_only(preset.config, founder)
    assert ours.from_thin(preset.config, founder)[1] == thin
    assert [thin.shapes[n.name][0] * 8 for n in thin.nodes if isinstance(n.op, Conv)] == [
        founder.shapes[n.name][0] for n in founder.nodes if isinstance(n.op, Conv)
    ]
    assert [n.op.stride for n in thin.nodes if isinstance(n.op, Conv)] == [
        n.op.stride for n in founder.nodes if isinstance(n.op, Conv)
    ]
    assert config.ceiling * count_macs(thin) == pytest.approx(preset.config.ceiling * count_macs(founder))


def test_controls_differ_in_one_idea():
    config, founder = PRESETS["digits"].config, PRESETS["digits"].founder()
    changed = {
        name: {
            f.name for f in dataclasses.fields(config) if getattr(config, f.name) != getattr(other, f.name)
        }
        for name, other in ((n, variant(config, founder)[0]) for n, variant in running.EVOLUTIONS.items())
    }
    assert changed == {
        "evo_topo": set(),
        "random": {"criterion"},
        "magnitude": {"criterion"},
        "no-inheritance": {"inherit", "inherited_rate", "recipe"},
        "prunes-only": {"mutations"},
        "splits-only": {"mutations", "ceiling"},
        "thin-founder": {"ceiling"},
    }
    assert set(running.METHODS) == {*running.EVOLUTIONS, *running.SEARCHES}


@pytest.mark.parametrize("criterion", ["magnitude", "Taylor"])
def test_pruning_meets_its_targets_and_leaves_what_it_measured(criterion, tmp_path, monkeypatch):
    pytest.importorskip("torch_pruning")
    task, recipe = small_task(), small_config().recipe
    founder = conv_net(task.input_shape, task.num_classes, (24, 24, 24), (1, 2, 1))
    save_task(task, tmp_path / DATA)

    def train_briefly(deadline, clock, model, task, recipe, seed):
        train(model, task, recipe, seed)
        reestimate_batchnorm(model, task, recipe.calibration_examples, seed)
        return evaluate(model, task.validation, task).accuracy

    monkeypatch.setattr(pruning, "train_until", train_briefly)
    setting = {**pruning.SETTING, "steps": 3, "smallest": 0.1}
    now = time.monotonic()
    job = pruning.Job(criterion, 40, str(tmp_path), founder.to_json(), recipe, 7, 100, now, 1e6, setting)
    steps = pruning.prune_iteratively(job, "cpu")
    assert [step.id for step in steps] == [40, 41, 42, 43]
    genomes = [Genome.from_json(step.genome) for step in steps]
    assert genomes[0].fingerprint == founder.fingerprint
    for number, (step, genome) in enumerate(zip(steps, genomes, strict=True)):
        assert count_macs(genome) <= count_macs(founder) * 0.1 ** (number / 3)
        model = build(genome)
        model.load_state_dict(load_file(weights_path(tmp_path, step.id)))
        assert module_macs(model.eval(), task.normalise(task.train.inputs[:1])) == count_macs(genome)
        assert evaluate(model, task.validation, task).accuracy == step.accuracy


def test_past_the_deadline_one_batch_is_trained():
    task, genome = small_task(), small_founder()
    recipe = small_config().recipe
    model = build(genome)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    clock = Clock(time.monotonic() - 100, 50.0)
    assert 0 <= pruning.train_until(10.0, clock, model, task, recipe, 0) <= 1
    assert any((before[name] != value).any() for name, value in model.state_dict().items())


def test_a_start_that_takes_too_long_is_said(tmp_path):
    running.prepare_data("digits", None, tmp_path)
    with pytest.raises(ValueError, match="more minutes"):
        running.make_record(Cell("digits", "evo_topo", 1, 0.5), tmp_path, time.monotonic() - 26)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["evo_topo", "torch-pruning", "optuna"])
def test_a_cell_runs_to_its_end(method, tmp_path):
    if method in running.PACKAGES:
        pytest.importorskip(running.PACKAGES[method])
    cell = Cell("digits", method, 1, 0.5)
    running.prepare_data("digits", None, tmp_path)
    assert running.run_cell(cell, tmp_path)
    record = read_record(record_path(tmp_path, cell))
    assert record.cell == cell
    assert record.founder_macs == count_macs(PRESETS["digits"].founder())
    assert record.cpu_seconds > 5
    assert 0 < min(p.seconds for p in record.points) < max(p.seconds for p in record.points) < record.seconds
    assert all(0 <= p.test_accuracy <= 1 for p in record.reported)
    assert record.reported
    costs, accuracies = [p.macs for p in record.reported], [p.accuracy for p in record.reported]
    if method == "evo_topo":  # whose front is judged by accuracies drawn towards what soft errors let expect
        assert costs == sorted(set(costs))
    else:
        assert accuracies == sorted(set(accuracies))
