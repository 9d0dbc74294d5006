import dataclasses
import math
import random
from pathlib import Path

import msgspec
import pytest
import torch

from evo_topo import Genome, SplitUnits, build, count_flops, random_edit
from evo_topo.restart import shrink_and_perturb
from evo_topo.task_file import save_task
from evo_topo.training import train
from evo_topo.training_end import Diverged
from populations.conception import parent_network
from populations.development import develop, measure_on_test, price_edits, probe_split
from populations.further import RATES
from populations.orders import DATA, Order, Teacher, outcome_path, weights_path
from populations.weights import WeightsError, load_weights, save_weights
from tests.small import small_config, small_founder, small_task


@pytest.fixture
def order(tmp_path):
    save_task(small_task(), tmp_path / DATA)
    recipe = small_config().recipe
    return Order(0, str(tmp_path), small_founder().to_json(), None, "", None, 7, recipe, 100)


def child_of(order: Order, sha256: str, **changes: object) -> Order:
    return msgspec.structs.replace(order, **{"id": 1, "parent": 0, "parent_sha256": sha256, **changes})


@pytest.mark.parametrize(("seconds", "examples"), [(0.0, 32), (1e9, 256)])
def test_a_limit_of_time_is_kept(order, seconds, examples):
    assert develop(msgspec.structs.replace(order, seconds=seconds), "cpu").examples == examples


def test_founder_then_child(order, tmp_path):
    founder = develop(order, "cpu")
    assert founder.status == "ok", founder.reason
    assert founder.inherited_loss is None
    assert founder.flops == 3 * 256 * count_flops(small_founder())
    assert founder.accuracy == int(founder.correct, 16).bit_count() / 128
    assert order.read_outcome() == founder
    edit = SplitUnits((("conv1", (0, 1)),))
    child = develop(child_of(order, founder.weights_sha256, edit=edit.to_json()), "cpu")
    assert child.status == "ok", child.reason
    assert child.inherited_loss == pytest.approx(founder.probe_loss, rel=1e-4)
    assert (founder.prices, child.prices) == (None, None)
    network = build(edit.apply(small_founder()))
    load_weights(network, weights_path(tmp_path, 1), child.weights_sha256)


def test_a_child_begins_with_what_the_shrinking_leaves(order, tmp_path):
    founder = develop(order, "cpu")
    still = dataclasses.replace(order.recipe, learning_rate=1e-12, weight_decay=0.0)
    child = develop(child_of(order, founder.weights_sha256, recipe=still, shrink=0.2), "cpu")
    assert child.status == "ok", child.reason
    expected, found = build(small_founder()), build(small_founder())
    load_weights(expected, weights_path(tmp_path, 0), founder.weights_sha256)
    shrink_and_perturb(expected, small_founder(), 0.2, order.seed)
    load_weights(found, weights_path(tmp_path, 1), child.weights_sha256)
    for got, wanted in zip(found.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(got, wanted)


def test_a_child_learns_from_its_teacher(order):
    founder = develop(order, "cpu")
    plain = child_of(order, founder.weights_sha256)
    teacher = Teacher(0, small_founder().to_json(), founder.weights_sha256, 0.5)
    taught = develop(msgspec.structs.replace(plain, teacher=teacher), "cpu")
    assert taught.status == "ok", taught.reason
    assert taught.weights_sha256 != develop(plain, "cpu").weights_sha256
    lost = msgspec.structs.replace(plain, teacher=msgspec.structs.replace(teacher, sha256="0" * 64))
    with pytest.raises(WeightsError, match="damaged"):
        develop(lost, "cpu")


def test_a_child_is_stopped_above_its_hurdle_alone(order):
    founder = develop(order, "cpu")
    edit = SplitUnits((("conv1", (0, 1)),))
    plain = child_of(order, founder.weights_sha256, edit=edit.to_json())
    whole = develop(plain, "cpu")
    cleared = develop(msgspec.structs.replace(plain, hurdle=whole.halfway_loss), "cpu")
    assert (cleared.weights_sha256, cleared.loss) == (whole.weights_sha256, whole.loss)
    weights_path(Path(order.run_dir), 1).unlink()
    outcome_path(Path(order.run_dir), 1).unlink()
    stopped = develop(msgspec.structs.replace(plain, hurdle=0.9 * whole.halfway_loss), "cpu")
    assert stopped.status == "stopped"
    assert f"got {whole.halfway_loss:.4g}; stopped at step 4" in stopped.reason
    assert (stopped.halfway_loss, stopped.inherited_loss) == (whole.halfway_loss, whole.inherited_loss)
    assert (stopped.examples, stopped.flops) == (128, 3 * 128 * count_flops(edit.apply(small_founder())))
    assert 0 < stopped.training_seconds < stopped.seconds
    assert (stopped.loss, stopped.accuracy, stopped.prices, stopped.weights_sha256) == (None, None, None, "")
    assert not weights_path(Path(order.run_dir), 1).exists()


def test_same_seed_same_child(order):
    first, second = develop(order, "cpu"), develop(order, "cpu")
    assert first.weights_sha256 == second.weights_sha256
    assert first.loss == second.loss
    other = develop(msgspec.structs.replace(order, seed=8), "cpu")
    assert other.weights_sha256 != first.weights_sha256


def test_measure_on_test_reads_the_test_split(order):
    outcome = develop(order, "cpu")
    accuracy = measure_on_test(child_of(order, outcome.weights_sha256), "cpu")
    assert 0.1 < accuracy <= 1
    assert accuracy * 100 == pytest.approx(round(accuracy * 100))


def test_divergence_is_reported(order):
    wild = dataclasses.replace(order.recipe, learning_rate=1e6)
    outcome = develop(msgspec.structs.replace(order, recipe=wild), "cpu")
    assert outcome.status == "diverged"
    assert "learning rate" in outcome.reason
    assert not weights_path(Path(order.run_dir), 0).exists()


@pytest.mark.parametrize("failures", [1, 2, 3])
def test_whoever_trains_on_and_diverges_begins_again_slower(order, monkeypatch, failures):
    founder = develop(order, "cpu")
    recipes = []

    def train_or_fail(model, task, recipe, *arguments, **settings):
        recipes.append(recipe)
        if len(recipes) <= failures:
            model.linear12.weight.data.fill_(math.nan)  # what is ruined must not be gone on with
            raise Diverged(4, 99.0)
        return train(model, task, recipe, *arguments, **settings)

    monkeypatch.setattr("populations.further.train", train_or_fail)
    further = develop(child_of(order, founder.weights_sha256), "cpu")
    rate = order.recipe.learning_rate
    tried = [share * rate for share in RATES[: failures + 1]]
    assert [recipe.learning_rate for recipe in recipes] == pytest.approx(tried)
    if failures < len(RATES):
        assert (further.status, further.examples) == ("ok", failures * 4 * 32 + 256), further.reason
    else:
        assert (further.status, further.reason) == ("diverged", str(Diverged(4, 99.0)))
        assert not weights_path(Path(order.run_dir), 1).exists()


def test_out_of_memory_is_reported(order, monkeypatch):
    def explode(*_: object) -> None:
        raise torch.OutOfMemoryError("no memory left on the device")

    monkeypatch.setattr("populations.development.train", explode)
    outcome = develop(order, "cpu")
    assert (outcome.status, outcome.reason) == ("out-of-memory", "no memory left on the device")


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "foreign"])
def test_damaged_weights_are_noticed(order, tmp_path, damage):
    founder = develop(order, "cpu")
    path = weights_path(tmp_path, 0)
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[-9] ^= 4
        path.write_bytes(data)
    elif damage == "truncate":
        path.write_bytes(data[:-100])
    elif damage == "remove":
        path.unlink()
    else:
        founder = msgspec.structs.replace(founder, weights_sha256=save_weights(torch.nn.Linear(2, 2), path))
    with pytest.raises(WeightsError, match=r"0\.safetensors"):  # no failure of the child's
        develop(child_of(order, founder.weights_sha256), "cpu")
    with pytest.raises(WeightsError, match=r"0\.safetensors"):
        load_weights(build(small_founder()), path, founder.weights_sha256)


def test_unfinished_outcome_is_not_read(order, tmp_path):
    assert order.read_outcome() is None
    develop(order, "cpu")
    path = outcome_path(tmp_path, 0)
    path.write_bytes(path.read_bytes()[:-5])
    assert order.read_outcome() is None


@pytest.mark.parametrize("criterion", ["obd", "magnitude", "random"])
def test_every_criterion_prices_every_unit(criterion):
    genome: Genome = random_edit(small_founder(), random.Random(3)).apply(small_founder())
    model = build(genome)
    prices = price_edits(model, genome, *probe_split(small_task(), 64), criterion, 0)
    assert prices.criterion == criterion
    for group in prices.units.values():
        assert sorted(group.order) == list(range(len(group.order)))
        assert all(map(math.isfinite, group.cumulative))


def test_a_stored_network_is_priced(order):
    founder = develop(order, "cpu")
    asked = msgspec.structs.replace(child_of(order, founder.weights_sha256), criterion="obd")
    priced = develop(asked, "cpu")
    assert priced.status == "ok", priced.reason
    genome, model = parent_network(asked, torch.device("cpu"))
    assert priced.prices == price_edits(model, genome, *probe_split(small_task(), 100), "obd", 7)
    assert (priced.examples, priced.weights_sha256, asked.read_outcome()) == (0, "", None)


def test_infinite_prices_are_a_failure(order, tmp_path):
    model = build(small_founder())
    with torch.no_grad():
        model.get_submodule("conv1").weight.mul_(float("inf"))
    weights_path(tmp_path, 0).parent.mkdir()
    sha256 = save_weights(model, weights_path(tmp_path, 0))
    priced = develop(msgspec.structs.replace(child_of(order, sha256), criterion="magnitude"), "cpu")
    assert (priced.status, priced.prices) == ("failed", None)
    assert "not finite" in priced.reason
