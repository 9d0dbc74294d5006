"""Of several mutations that one is trained which costs least for what it saves."""

import dataclasses
import math
from pathlib import Path

import msgspec
import pytest
import torch

from evo_topo import PruneLayer, PruneUnits, SplitUnits, build, count_flops
from evo_topo.inheritance import Probe, inherit
from evo_topo.saliency import mean_loss, reconstruct
from evo_topo.task_file import save_task
from populations.conception import LEAST_RISE, conceive, refit_examples
from populations.development import develop, probe_split, unseen_split
from populations.orders import DATA, Order, Rival, weights_path
from populations.weights import load_weights
from tests.small import small_config, small_founder, small_task

CPU = torch.device("cpu")
EDITS = (
    PruneUnits((("conv1", (0, 1, 2)),)),
    PruneUnits((("conv4", (0,)),)),
    PruneLayer("conv7"),
)


@pytest.fixture(scope="module")
def order(tmp_path_factory):
    """An order for a child of a trained network, with each edit in turn."""
    folder, task = tmp_path_factory.mktemp("run"), small_task()
    save_task(task, folder / DATA)
    recipe = dataclasses.replace(small_config().recipe, examples=1024)
    founder = Order(0, str(folder), small_founder().to_json(), None, "", None, 7, recipe, 100)
    outcome = develop(founder, "cpu")
    assert outcome.status == "ok", outcome.reason
    return msgspec.structs.replace(founder, id=1, parent=0, parent_sha256=outcome.weights_sha256)


def splits(examples):
    return probe_split(small_task(), examples), unseen_split(small_task(), examples)


def slow_rate(order, edit, probe, unseen):
    """Rise of the loss by the square of the halvings of FLOPs, one edit at a time."""
    genome, model = small_founder(), build(small_founder())
    load_weights(model, weights_path(Path(order.run_dir), 0), order.parent_sha256)
    child = inherit(model, genome, edit, probe)
    reconstruct(child, model, genome, edit, probe.first(refit_examples(probe)).inputs, seed=order.seed)
    rise = max(LEAST_RISE, mean_loss(child, *unseen) - mean_loss(model, *unseen))
    return rise / (math.log2(count_flops(genome)) - math.log2(count_flops(edit.apply(genome)))) ** 2


@pytest.mark.parametrize("first", range(3))
def test_the_best_is_chosen_whatever_the_order(order, first):
    edits = [*EDITS[first:], *EDITS[:first]]
    probe, unseen = splits(order.probe_examples)
    rivals = tuple(Rival(edit.to_json(), 100 + n) for n, edit in enumerate(edits[1:], start=1))
    order = msgspec.structs.replace(order, run_dir=order.run_dir, edit=edits[0].to_json(), rivals=rivals)
    child = conceive(order, probe, unseen, CPU)
    best_first = sorted(edits, key=lambda edit: slow_rate(order, edit, probe, unseen))
    assert [screened.edit for screened in child.screened] == best_first
    assert child.genome == best_first[0].apply(small_founder())
    place = edits.index(best_first[0])
    assert child.examples == (100 + place if place else order.recipe.examples)
    assert child.refit_loss == child.screened[0].loss == pytest.approx(mean_loss(child.model, *unseen))
    for screened in child.screened:
        genome = screened.edit.apply(small_founder())
        assert (screened.fingerprint, screened.flops) == (genome.fingerprint, count_flops(genome))


@pytest.mark.parametrize("examples", [1, 100, 127, 128, 129, 256, 1000])
def test_what_is_refit_on_and_what_is_measured_on_have_nothing_in_common(examples):
    train = small_task().train.inputs
    probe, unseen = splits(examples)
    assert torch.equal(probe.inputs, small_task().normalise(train[: len(probe.inputs)]))
    assert torch.equal(unseen.inputs, small_task().normalise(train[-len(unseen.inputs) :]))
    assert len(probe.inputs) == len(unseen.inputs) == min(examples, len(train) // 2)


@pytest.mark.parametrize(
    ("shape", "examples"),
    [((1, 8, 8), 512), ((1, 28, 28), 256), ((3, 32, 32), 256), ((7,), 512), ((2, 600), 333)],
)
def test_smaller_inputs_are_refit_on_more_examples(shape, examples):
    assert refit_examples(Probe(torch.zeros(1, *shape), torch.zeros(1))) == examples


def test_a_single_mutation_is_not_screened(order):
    probe, unseen = splits(order.probe_examples)
    edit = SplitUnits((("conv1", (0,)),))
    child = conceive(msgspec.structs.replace(order, edit=edit.to_json()), probe, unseen, CPU)
    assert (child.screened, child.refit_loss, child.examples) == ((), None, order.recipe.examples)
    parent = conceive(order, probe, unseen, CPU)
    assert child.inherited_loss == pytest.approx(mean_loss(parent.model, *unseen))


def test_the_chosen_one_is_trained_as_long_as_its_size_asks(order):
    rivals = (Rival(EDITS[1].to_json(), 320), Rival(EDITS[2].to_json(), 640))
    outcome = develop(msgspec.structs.replace(order, edit=EDITS[0].to_json(), rivals=rivals), "cpu")
    assert outcome.status == "ok", outcome.reason
    asked = dict(zip(EDITS, (1024, 320, 640), strict=True))
    assert outcome.examples == asked[outcome.screened[0].edit]
    assert len(outcome.screened) == 3


def test_a_network_that_answers_no_numbers_is_not_chosen(order, monkeypatch):
    width = small_founder().shapes["conv1"][0]

    def loss(model, *probe):
        is_thin = model.get_submodule("conv1").out_channels < width
        return math.nan if is_thin else mean_loss(model, *probe)

    monkeypatch.setattr("populations.conception.mean_loss", loss)
    rivals = (Rival(EDITS[2].to_json(), 64),)
    order = msgspec.structs.replace(order, edit=EDITS[0].to_json(), rivals=rivals)
    child = conceive(order, *splits(100), CPU)
    assert [screened.edit for screened in child.screened] == [EDITS[2], EDITS[0]]
    assert child.screened[1].loss is None
