"""Optuna as a rival: what it is asked for, and for how long its trials train."""

import itertools
import time

import pytest

from analysis.benchmarks.peers import search
from analysis.benchmarks.peers.cells import Bench, Clock
from analysis.benchmarks.peers.space import Stage, as_parameters, suggest_stages
from evo_topo.cost import count_macs
from evo_topo.task_file import save_task
from populations.individual import Individual, Outcome
from populations.orders import DATA
from populations.presets import PRESETS
from populations.slots import Slots
from tests.small import small_config, small_founder, small_task


def test_a_trial_suggests_the_stages_it_is_given():
    optuna = pytest.importorskip("optuna")
    stages = [Stage(1, 2, 5, 2, True, True), Stage(0, 64), Stage(3, 7)]
    assert suggest_stages(optuna.trial.FixedTrial(as_parameters(stages))) == stages


def test_no_network_is_asked_for_twice_or_beyond_the_ceiling():
    pytest.importorskip("optuna")
    config, founder = PRESETS["digits"].config, PRESETS["digits"].founder()
    ceiling = 0.9 * count_macs(founder)
    asked = search.asked_networks(search._study(config), founder, ceiling)
    genomes = [genome for _, genome in itertools.islice(asked, 30)]
    assert len({genome.fingerprint for genome in genomes}) == 30
    assert max(map(count_macs, genomes)) <= ceiling
    _, first = next(search.asked_networks(search._study(config), founder, count_macs(founder)))
    assert first.fingerprint == founder.fingerprint


def test_no_trial_trains_on_for_longer_than_foreseen(tmp_path, monkeypatch):
    orders = []

    class NoCrew:
        is_busy = False

        def __init__(self, slots):
            pass

        def submit(self, order):
            orders.append(order)

    monkeypatch.setattr(search, "Crew", NoCrew)
    save_task(small_task(), tmp_path / DATA)
    slots = Slots(("cpu", "cpu"), 1, tmp_path)
    bench = Bench(small_config(tmp_path), small_founder(), Clock(time.monotonic(), 100.0), tmp_path, slots)
    correct = f"{(1 << 20) - 1:x}"
    outcome = Outcome(
        "ok", accuracy=0.5, loss=1.0, correct=correct, examples=1000, seconds=11.0, training_seconds=10.0
    )
    trial = Individual(0, None, 0, None, small_founder(), None, None, 0, 0, 0.0, outcome)
    assert search._train_on(bench, bench.config, [trial]) == []
    [order] = orders
    assert order.seconds == pytest.approx(1 + order.recipe.examples / 100)
    assert 0.97 * bench.clock.end < order.seconds <= bench.clock.end
