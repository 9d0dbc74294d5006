"""Training learns, repeats itself, and each of its parts agrees with a slow reference."""

import copy
import dataclasses
import math
from collections.abc import Iterator
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from sklearn.datasets import load_wine
from torch import nn

from evo_topo import stepping, training
from evo_topo.datasets import load_dataset
from evo_topo.evaluation import evaluate, reestimate_batchnorm
from evo_topo.recipe import LEAST_STEPS, Recipe
from evo_topo.task import Task
from evo_topo.training import rate_factor, train
from evo_topo.training_end import Diverged, Stopped


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """The number of threads decides the last bits of a result, and small nets gain nothing."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def digits() -> Task:
    return load_dataset("digits")


@pytest.fixture(scope="module")
def wine() -> Task:
    data = load_wine()
    return Task.from_arrays("wine", data.data, data.target)


def conv_net(dropout: float = 0.0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Dropout(dropout),
            nn.Flatten(),
            nn.Linear(512, 10),
        )


def mlp() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(13, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_digits_are_learned(digits: Task) -> None:
    model = conv_net()
    recipe = Recipe(examples=12_800, learning_rate=0.1, crop_padding=1)
    before = evaluate(model, digits.validation, digits)
    result = train(model, digits, recipe, seed=0)
    reestimate_batchnorm(model, digits, recipe.calibration_examples, seed=0)
    after = evaluate(model, digits.validation, digits)
    assert before.accuracy < 0.3
    assert after.accuracy >= 0.95
    assert after.loss < 0.2 < before.loss
    assert result.loss < 0.3
    assert (result.steps, result.examples) == (200, 12_800)
    assert result.seconds > 0
    assert all(p.is_contiguous() for p in model.parameters())


def test_features_are_learned(wine: Task) -> None:
    model = mlp()
    train(model, wine, Recipe(examples=3000, batch_size=32, learning_rate=0.05), seed=0)
    assert evaluate(model, wine.validation, wine).accuracy >= 0.9


def test_same_seed_same_weights_whatever_the_global_state(digits: Task) -> None:
    models = [conv_net(dropout=0.5) for _ in range(3)]
    recipe = Recipe(examples=640, learning_rate=0.1, crop_padding=2, flip=True)
    for model, seed, state in zip(models, (7, 7, 8), (1, 2, 2), strict=True):
        torch.manual_seed(state)
        before = torch.get_rng_state()
        train(model, digits, recipe, seed)
        reestimate_batchnorm(model, digits, 300, seed)
        evaluate(model, digits.validation, digits)
        assert torch.equal(before, torch.get_rng_state())
    assert same_weights(models[0], models[1])
    assert not same_weights(models[0], models[2])


def test_training_flags_come_back(digits: Task) -> None:
    model = conv_net().train()
    model[1].eval()
    flags = [m.training for m in model.modules()]
    train(model, digits, Recipe(examples=64, learning_rate=0.1), seed=0)
    reestimate_batchnorm(model, digits, 64, seed=0)
    evaluate(model, digits.test, digits)
    assert [m.training for m in model.modules()] == flags


@pytest.mark.parametrize("steps", [1, 2, 7, 40])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 0.99])
def test_rate_rises_and_falls_in_straight_lines(steps: int, warmup: float) -> None:
    rising = round(warmup * steps)
    knots = [(-1, 0.0), (rising - 1, 1.0), (rising, 1.0), (steps, 0.0)]
    for step in range(steps):
        left = max((k for k in knots if k[0] <= step), key=lambda k: (k[0], k[1]))
        right = min((k for k in knots if k[0] > step), key=lambda k: k[0])
        share = (step - left[0]) / (right[0] - left[0])
        expected = left[1] + share * (right[1] - left[1])
        assert rate_factor(step, steps, warmup) == pytest.approx(expected)


def test_the_rate_falls_by_the_clock_where_time_is_short(
    digits: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a clock that goes on by a second whenever it is read: twice at the start, then at each step."""
    clock, rates = count(), []
    monkeypatch.setattr("evo_topo.training.time", SimpleNamespace(perf_counter=lambda: next(clock)))
    monkeypatch.setattr("evo_topo.descent.Descent.set_rate", lambda _, rate: rates.append(rate))
    recipe = Recipe(examples=100 * 16, batch_size=16, learning_rate=0.1, warmup=0.2)
    result = train(conv_net(), digits, recipe, seed=0, seconds=11.0)
    assert rates == pytest.approx([0.1 * rate_factor(10.0 * second, 100, 0.2) for second in range(10)])
    assert (result.steps, result.examples) == (10, 160)
    assert math.isfinite(result.loss)


def test_a_limit_of_time_that_is_kept_changes_nothing(digits: Task) -> None:
    models = [conv_net() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    recipe = Recipe(examples=320, batch_size=32, learning_rate=0.1)
    results = [train(models[0], digits, recipe, 0), train(models[1], digits, recipe, 0, seconds=1e6)]
    assert same_weights(*models)
    assert results[0].halfway_loss == results[1].halfway_loss


@pytest.mark.parametrize(("has_bfloat16", "tolerance"), [(False, 1e-6), (True, 1e-3)])
def test_one_step_is_sgd_by_hand(
    wine: Task, monkeypatch: pytest.MonkeyPatch, has_bfloat16: bool, tolerance: float
) -> None:
    """One full-batch step against the update written out, decay on matrices only."""
    monkeypatch.setattr("evo_topo.stepping.has_fast_bfloat16", lambda _: has_bfloat16)
    model = nn.Linear(13, 3)
    reference = copy.deepcopy(model)
    count = len(wine.train.targets)
    recipe = Recipe(
        examples=count, batch_size=count, learning_rate=0.1, weight_decay=0.2, full_decay=4 * 39, warmup=0
    )
    train(model, wine, recipe, seed=0)
    logits = reference(wine.normalise(wine.train.inputs))
    nn.functional.cross_entropy(logits, wine.train.targets).backward()
    with torch.no_grad():
        for parameter in reference.parameters():
            decay = 0.1 * parameter if parameter.ndim > 1 else 0  # half of 0.2, for a quarter of the weights
            # Nesterov's first step is (1 + momentum) times the gradient
            parameter -= 0.1 * 1.9 * (parameter.grad + decay)
    torch.testing.assert_close(model.weight, reference.weight, rtol=0, atol=tolerance)
    torch.testing.assert_close(model.bias, reference.bias, rtol=0, atol=tolerance)
    if has_bfloat16:  # or nothing was rounded
        assert not torch.allclose(model.weight, reference.weight, rtol=0, atol=1e-6)


def test_decay_spares_a_weight_alone_in_its_filter(digits: Task) -> None:
    """Under BatchNorm its gradient vanishes, and decay would take it to where steps are far too long."""
    lone = nn.Conv2d(1, 2, 1, bias=False)
    nn.init.constant_(lone.weight, 0.5)
    net = nn.Sequential(lone, nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10))
    train(net, digits, Recipe(examples=64 * 40, learning_rate=0.1, weight_decay=0.5), seed=0)
    torch.testing.assert_close(lone.weight, torch.full_like(lone.weight, 0.5), rtol=0.05, atol=0)


@pytest.mark.parametrize("is_long", [False, True])
def test_only_a_training_that_could_learn_by_heart_erases(digits: Task, is_long: bool) -> None:
    count, weights = len(digits.train.targets), 16 * 9 + 32 * 16 * 9 + 512 * 10
    plain = Recipe(examples=2 * count, learning_rate=0.1)
    bound = 2 * weights if is_long else 2 * weights + 1
    ruled = dataclasses.replace(plain, erase=0.25, erase_from=bound)
    models = [conv_net(), conv_net(), conv_net()]
    for model, recipe in zip(models, (ruled, dataclasses.replace(plain, erase=0.25), plain), strict=True):
        train(model, digits, recipe, seed=0)
    assert same_weights(models[0], models[1 if is_long else 2])
    assert not same_weights(models[1], models[2])


@pytest.mark.parametrize("limit", [0.01, 1e3])
def test_a_gradient_above_the_limit_is_cut_to_it(wine: Task, limit: float) -> None:
    """One full-batch step: cut, all parameters together move by its rate times the limit; else, as ever."""
    count = len(wine.train.targets)
    recipe = Recipe(examples=count, batch_size=count, learning_rate=0.1, momentum=0, weight_decay=0, warmup=0)
    free, cut = mlp(), mlp()
    before = nn.utils.parameters_to_vector(free.parameters()).detach()
    train(free, wine, recipe, seed=0)
    train(cut, wine, dataclasses.replace(recipe, clip_norm=limit), seed=0)
    moves = [nn.utils.parameters_to_vector(model.parameters()) - before for model in (free, cut)]
    share = min(1.0, 0.1 * limit / moves[0].norm().item())
    assert (share < 1) == (limit < 1)
    torch.testing.assert_close(moves[1], share * moves[0], rtol=1e-3, atol=1e-7)


def test_a_doubled_batch_trains_as_one_that_is_asked_for(wine: Task) -> None:
    doubling = Recipe(examples=LEAST_STEPS * 8, batch_size=2, batch_doublings=2, learning_rate=0.005)
    plain = Recipe(examples=LEAST_STEPS * 8, batch_size=8, learning_rate=0.02)
    models = mlp(), mlp()
    doubled, asked = (train(m, wine, r, seed=3) for m, r in zip(models, (doubling, plain), strict=True))
    assert doubled.steps == asked.steps == LEAST_STEPS
    assert doubled.examples == asked.examples
    assert doubled.loss == asked.loss
    for one, other in zip(*(m.state_dict().values() for m in models), strict=True):
        assert torch.equal(one, other)


def test_leaving_out_easy_examples_changes_nothing_before_the_second_pass(digits: Task) -> None:
    count = len(digits.train.targets)
    for examples, is_same in ((count // 64 * 64, True), (count * 4, False)):
        recipe = Recipe(examples=examples, learning_rate=0.05, crop_padding=1)
        models = conv_net(), conv_net()
        train(models[0], digits, recipe, seed=3)
        result = train(models[1], digits, dataclasses.replace(recipe, skip_easy=0.5), seed=3)
        assert result.steps == recipe.steps
        assert same_weights(*models) == is_same


def test_a_network_that_leaves_out_easy_examples_learns(digits: Task) -> None:
    model = conv_net()
    recipe = Recipe(examples=10_000, learning_rate=0.05, skip_easy=0.5)
    train(model, digits, recipe, seed=0)
    reestimate_batchnorm(model, digits, recipe.calibration_examples, seed=0)
    assert evaluate(model, digits.validation, digits).accuracy >= 0.95


@pytest.mark.parametrize("asked", [{"flip": True}, {"crop_padding": 1}, {"erase": 0.25}])
def test_augmentation_is_refused_without_images(wine: Task, asked: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected images \(C, H, W\), got inputs \(13,\)"):
        train(mlp(), wine, Recipe(examples=64, learning_rate=0.1, **asked), seed=0)


def test_divergence_is_noticed_and_travels(digits: Task) -> None:
    with pytest.raises(Diverged, match=r"at step 20; lower the learning rate") as caught:
        train(conv_net(), digits, Recipe(examples=6400, learning_rate=1e6, warmup=0), seed=0)
    error = copy.copy(caught.value)  # rebuilt from its arguments, as in another process
    assert (error.step, str(error)) == (20, str(caught.value))
    assert not error.value <= 10 * math.log(10)


def test_not_a_number_is_divergence(digits: Task) -> None:
    model = conv_net()
    nn.init.constant_(model[-1].bias, math.nan)
    with pytest.raises(Diverged) as caught:
        train(model, digits, Recipe(examples=64, learning_rate=0.1), seed=0)
    assert caught.value.step == 1
    assert math.isnan(caught.value.value)


def test_a_trained_network_has_diverged_where_a_blind_guess_is_better(digits: Task) -> None:
    recipe = Recipe(examples=64 * 20, learning_rate=1e-9)
    model = conv_net()
    model[-1].bias.data[0] = 5.0  # sure of one class of ten
    assert math.log(10) < train(model, digits, recipe, seed=0).loss < 10 * math.log(10)
    with pytest.raises(Diverged, match="lower the learning rate"):
        train(model, digits, recipe, seed=0, is_further=True)


def noted(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The loss of every step that is trained from here on."""
    losses: list[float] = []
    original = training._steps

    def steps(*arguments: object) -> Iterator[torch.Tensor]:
        for loss in original(*arguments):
            losses.append(loss.item())
            yield loss

    monkeypatch.setattr(training, "_steps", steps)
    return losses


@pytest.mark.parametrize("steps", [1, 3, 4, 7, 20, 45])
def test_the_halfway_loss_is_the_mean_of_the_second_quarter(wine: Task, monkeypatch, steps: int) -> None:
    losses = noted(monkeypatch)
    recipe = Recipe(examples=16 * steps, batch_size=16, learning_rate=0.05)
    result = train(mlp(), wine, recipe, seed=0)
    assert len(losses) == steps
    if steps < 4:
        assert result.halfway_loss is None
        assert train(mlp(), wine, recipe, seed=0, hurdle=0.0).loss == result.loss  # too short to be stopped
    else:
        second = losses[steps // 4 : steps // 2]
        assert result.halfway_loss == pytest.approx(sum(second) / len(second))


def test_training_stops_at_half_time_above_the_hurdle_alone(digits: Task, monkeypatch) -> None:
    recipe = Recipe(examples=64 * 30, learning_rate=0.1, crop_padding=1)
    whole, cleared, stopped = (conv_net(dropout=0.5) for _ in range(3))
    losses = noted(monkeypatch)
    result = train(whole, digits, recipe, seed=0)
    again = train(cleared, digits, recipe, seed=0, hurdle=result.halfway_loss)  # met, not exceeded
    assert (again.loss, again.halfway_loss) == (result.loss, result.halfway_loss)
    assert same_weights(whole, cleared)
    assert losses[:30] == losses[30:]
    before = torch.get_rng_state()
    with pytest.raises(Stopped, match=r"at most 0\.1 in the second quarter .* stopped at step 15") as caught:
        train(stopped, digits, recipe, seed=0, hurdle=0.1)
    assert losses[60:] == losses[:15]
    assert torch.equal(before, torch.get_rng_state())
    assert stopped.training
    error = copy.copy(caught.value)  # rebuilt from its arguments, as in another process
    assert (error.hurdle, error.result, str(error)) == (0.1, caught.value.result, str(caught.value))
    assert (error.result.steps, error.result.examples) == (15, 15 * 64)
    assert error.result.halfway_loss == result.halfway_loss
    assert error.result.loss == pytest.approx(sum(losses[:15]) / 15)
    assert error.result.seconds > 0


def test_what_diverged_is_not_said_to_be_stopped(digits: Task) -> None:
    model = conv_net()
    nn.init.constant_(model[-1].bias, math.nan)
    with pytest.raises(Diverged) as caught:
        train(model, digits, Recipe(examples=64 * 8, learning_rate=0.1), seed=0, hurdle=0.0)
    assert caught.value.step == 4


def test_bfloat16_training_learns_and_leaves_float32_weights(digits: Task, monkeypatch) -> None:
    monkeypatch.setattr(stepping, "has_fast_bfloat16", lambda device: True)
    model, seen = conv_net(), set()
    model[-1].register_forward_hook(lambda _, __, logits: seen.add(logits.dtype))
    train(model, digits, Recipe(examples=1500, learning_rate=0.02), seed=0)
    assert seen == {torch.bfloat16}
    reestimate_batchnorm(model, digits, 512, seed=0)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert evaluate(model, digits.validation, digits).accuracy > 0.85


@pytest.mark.parametrize("fast", [False, True])
def test_a_model_is_whole_again_whatever_ends_its_training(digits: Task, monkeypatch, fast: bool) -> None:
    monkeypatch.setattr(stepping, "has_fast_bfloat16", lambda device: fast)
    model = conv_net()
    model[1].num_batches_tracked += 7
    before, weights = model[1].running_mean.clone(), dict(model.named_parameters())
    train(model, digits, Recipe(examples=320, learning_rate=0.02), seed=0)
    with pytest.raises(Diverged):
        train(model, digits, Recipe(examples=3200, learning_rate=1e6), seed=0)
    assert all(weights[name] is weight for name, weight in model.named_parameters())
    assert model[1].num_batches_tracked == 7  # nobody reads it, so it is not counted
    assert not torch.equal(model[1].running_mean, before)


def test_a_cumulative_average_is_counted(digits: Task) -> None:
    model = conv_net()
    model[1].momentum = None
    train(model, digits, Recipe(examples=640, learning_rate=0.02), seed=0)
    assert (model[1].num_batches_tracked, model[4].num_batches_tracked) == (10, 0)


@pytest.mark.gpu
def test_digits_are_learned_on_a_gpu(digits: Task) -> None:
    model, device = conv_net(dropout=0.1), torch.device("cuda")
    before = torch.get_rng_state(), torch.cuda.get_rng_state()
    recipe = Recipe(examples=8000, learning_rate=0.1, crop_padding=1)
    train(model, digits, recipe, seed=0, device=device)
    reestimate_batchnorm(model, digits, recipe.calibration_examples, seed=0)
    assert all(map(torch.equal, before, (torch.get_rng_state(), torch.cuda.get_rng_state())))
    assert evaluate(model, digits.validation, digits).accuracy >= 0.95
    assert next(model.parameters()).is_cuda
