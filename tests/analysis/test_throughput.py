"""The benchmark of training speed compares like with like, and adds up."""

from pathlib import Path

import pytest
import torch

from analysis.benchmarks.loops import plain_network, seconds_by_hand
from analysis.benchmarks.machine import this_machine
from analysis.benchmarks.synthetic import LAYERS, NetworkName, network, pictures
from analysis.benchmarks.throughput import (
    Rate,
    ThroughputInfo,
    command,
    draw_throughput,
    measure,
    throughput_table,
    worker_gains,
)
from evo_topo.cost import count_macs, count_params
from evo_topo.recipe import Recipe

RATES = [
    Rate("2 M", "cpu", 1, "evo_topo", 1000.0, 1.0),
    Rate("2 M", "cpu", 1, "plain", 500.0, 2.0),
    Rate("2 M", "cpu", 2, "evo_topo", 1900.0, 1.0),
]


@pytest.mark.parametrize("name", LAYERS)
def test_networks_by_hand_are_the_same_and_as_large_as_their_names(name: NetworkName) -> None:
    genome = network(name)
    assert count_macs(genome) == pytest.approx(1e6 * float(name.split()[0]), rel=0.1)
    assert sum(p.numel() for p in plain_network(name).parameters()) == count_params(genome)


@pytest.mark.parametrize("careful", [False, True])
def test_loops_by_hand_learn(careful: bool) -> None:
    task = pictures(4000, 10, 200)
    torch.manual_seed(0)
    model = plain_network("0.5 M")
    recipe = Recipe(examples=4000, learning_rate=0.1)
    assert seconds_by_hand(model, task.normalise(task.train.inputs), task.train.targets, recipe, careful) > 0
    with torch.no_grad():
        found = model.eval()(task.normalise(task.test.inputs)).argmax(1)
    assert (found == task.test.targets).float().mean() > 0.5


def test_gains_are_multiples_of_one_worker() -> None:
    assert worker_gains(RATES) == [("2 M", 2, 1.9)]


def test_the_table_holds_every_rate() -> None:
    info = ThroughputInfo(this_machine(), 1000, 3, RATES, "no GPU")
    text = throughput_table(info)
    assert all(part in text for part in ("1,900", "2.00", "1.90 times"))
    draw_throughput(info).draw_without_rendering()


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--repeats", "0"], "expected at least one worker"), (["--workers"], "workers: there is no GPU here")],
)
def test_bad_input_ends_in_one_message(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    message: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as error:
        command([*options, "--out", str(tmp_path)])
    assert error.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_a_rate_is_measured() -> None:
    ours, plain = measure(["0.5 M"], ["evo_topo", "plain"], 1, "cpu", 256, 1)
    assert ours.ratio == 1
    assert plain.ratio == pytest.approx(ours.examples_per_second / plain.examples_per_second)
