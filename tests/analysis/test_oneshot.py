"""The comparison with Torch-Pruning runs on a small network, keeps its cells and says what it found."""

from pathlib import Path

import msgspec
import pytest
import torch
from torch.nn.functional import cross_entropy

from analysis.benchmarks import oneshot
from analysis.benchmarks.oneshot import Cell, command, measure, oneshot_table, read_cells
from analysis.benchmarks.oneshot_methods import METHODS
from analysis.benchmarks.rival import mean_squared_gradients, module_macs
from analysis.benchmarks.subject import Subject
from evo_topo.cost import count_macs
from evo_topo.datasets import load_dataset
from evo_topo.phenotype import build
from populations.founders import conv_net, residual_net

PLAIN = conv_net((1, 8, 8), 10, (6, 8, 8), (1, 2, 1))
NETS = {"plain": PLAIN, "residual": residual_net((1, 8, 8), 10, (6, 8), 1)}


def subject_of(genome, examples=40):
    task = load_dataset("digits")
    inputs, targets = (tensor[:examples] for tensor in task.train)
    return Subject(build(genome).eval(), genome, task.normalise(inputs), targets)


@pytest.mark.parametrize("network", NETS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_stays_within_the_budget_and_near_it(method, network):
    if method.startswith("Torch-Pruning"):
        pytest.importorskip("torch_pruning")
    subject, task = subject_of(NETS[network]), load_dataset("digits")
    state = {name: value.clone() for name, value in subject.model.state_dict().items()}
    assert module_macs(subject.model, subject.inputs) == count_macs(subject.genome)
    left, accuracy, seconds = measure(subject, task, method, 0.6, 40)
    assert 0.35 < left <= 0.6
    assert 0 <= accuracy <= 1
    assert seconds > 0
    assert all(torch.equal(value, state[name]) for name, value in subject.model.state_dict().items())


def test_its_hessian_criterion_sees_all_examples():
    subject = subject_of(PLAIN, 50)
    found = mean_squared_gradients(subject.model, subject.inputs, subject.targets)
    total = {name: torch.zeros_like(value) for name, value in found.items()}
    for example, target in zip(subject.inputs, subject.targets, strict=True):
        subject.model.zero_grad()
        cross_entropy(subject.model(example[None]), target[None]).backward()
        for name, parameter in subject.model.named_parameters():
            total[name] += parameter.grad.square()
    for name, value in total.items():
        torch.testing.assert_close(found[name], value / 50, rtol=1e-3, atol=1e-7)


def test_cells_are_kept_and_not_made_twice(tmp_path: Path, monkeypatch, capsys) -> None:
    task = load_dataset("digits")
    monkeypatch.setattr(oneshot, "load_dataset", lambda *_: task)
    monkeypatch.setattr(oneshot, "NETWORKS", {"plain": lambda: PLAIN})
    made = []
    monkeypatch.setattr(oneshot, "measure", lambda *at: (at[3], 0.5 + len(made), made.append(at[2:4]) or 1.0))
    options = ["--networks", "plain", "--seeds", "4", "--training-examples", "128", "--examples", "50"]
    options += ["--out", str(tmp_path), "--methods", "ours", "ours, one step", "--shares", "0.5"]
    command(options)
    first = capsys.readouterr().out
    (path,) = tmp_path.glob("*.jsonl")
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])  # as if it had been stopped
    command([*options, "--json"])
    assert made == [("ours", 0.5), ("ours, one step", 0.5), ("ours, one step", 0.5)]
    cells = msgspec.json.decode(capsys.readouterr().out, type=list[Cell])
    assert cells == read_cells(path)
    assert [(cell.method, cell.accuracy) for cell in cells] == [("ours", 0.5), ("ours, one step", 2.5)]
    assert len(list(tmp_path.glob("plain-4-128.safetensors"))) == 1
    assert "ours, one step" in first


def test_the_table_gives_mean_and_range_over_seeds():
    cells = [Cell("plain", seed, "ours", 0.5, 0.49, 0.8 + 0.02 * seed, 3.0) for seed in (1, 2)]
    heading, row = oneshot_table(cells, (0.5, 0.25)).splitlines()
    assert heading.split() == ["plain", "seeds", "50%", "of", "MACs", "25%", "of", "MACs", "CPU", "seconds"]
    assert row.split() == ["ours", "2", "0.830", "(0.820", "..", "0.840)", "-", "3.0"]


def test_a_network_that_kept_too_much_is_counted_and_not_averaged():
    cells = [Cell("plain", seed, "ours", 0.5, left, 0.9, 3.0) for seed, left in ((1, 0.505), (2, 1.0))]
    _, row = oneshot_table(cells, (0.5,)).splitlines()
    assert row.split() == ["ours", "2", "0.900", "(0.900", "..", "0.900),", "1", "over", "3.0"]
    _, row = oneshot_table(cells[1:], (0.5,)).splitlines()
    assert row.split() == ["ours", "1", "-,", "1", "over", "3.0"]
