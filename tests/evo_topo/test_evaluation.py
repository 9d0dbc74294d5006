"""Measurements agree with a slow reference."""

import math

import pytest
import torch
from torch import nn

from evo_topo import build
from evo_topo.datasets import load_dataset
from evo_topo.evaluation import evaluate, reestimate_batchnorm, soft_error
from evo_topo.task import Task
from tests.small import small_founder


@pytest.fixture(scope="module")
def digits() -> Task:
    return load_dataset("digits")


@pytest.mark.parametrize("examples", [10_000, 897])
def test_batchnorm_gets_the_mean_and_variance_of_the_data(digits: Task, examples: int) -> None:
    norm = nn.BatchNorm2d(1)
    norm.running_mean += 5  # as after a hundred batches of something else
    norm.num_batches_tracked += 100
    model = nn.Sequential(norm, nn.Dropout(0.9), nn.BatchNorm2d(1))
    reestimate_batchnorm(model, digits, examples, seed=0)
    inputs = digits.normalise(digits.train.inputs)
    torch.testing.assert_close(norm.running_mean, inputs.mean().view(1), atol=1e-3, rtol=0)
    torch.testing.assert_close(norm.running_var, inputs.var().view(1), atol=1e-3, rtol=0)
    # with dropout on, the variance behind it would be about ten
    torch.testing.assert_close(model[2].running_var, torch.ones(1), atol=1e-2, rtol=0)
    assert norm.momentum == 0.1


def test_batchnorm_is_measured_on_the_examples_asked_for(digits: Task) -> None:
    seen = []
    model = nn.Sequential(nn.BatchNorm2d(1))
    model.register_forward_pre_hook(lambda _, args: seen.append(args[0].flatten(1)))
    reestimate_batchnorm(model, digits, 300, seed=1)
    rows = torch.cat(seen)
    batch_means = torch.stack([batch.mean() for batch in seen])
    assert [len(batch) for batch in seen] == [150, 150]
    assert len(rows.unique(dim=0)) == 300
    torch.testing.assert_close(model[0].running_mean, batch_means.mean().view(1))


def test_evaluation_agrees_with_one_large_batch(digits: Task) -> None:
    model = build(small_founder()).eval()
    split = digits.validation
    result = evaluate(model, split, digits, batch_size=64)
    with torch.no_grad():
        logits = model(digits.normalise(split.inputs))
    assert result.loss == pytest.approx(nn.functional.cross_entropy(logits, split.targets).item())
    assert torch.equal(result.correct, logits.argmax(1) == split.targets)
    assert result.accuracy == result.correct.double().mean().item()


@pytest.mark.parametrize("classes", [2, 7])
def test_the_soft_error_counts_margins_one_by_one(classes: int) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, classes, generator=generator, dtype=torch.float64)
    targets = torch.randint(classes, (50,), generator=generator)
    margins = []
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        margins.append(row[target] - max(value for k, value in enumerate(row) if k != target))
    size = sum(abs(margin) for margin in margins) / 50
    expected = sum(1 / (1 + math.exp(5 * margin / size)) for margin in margins) / 50
    assert soft_error(logits, targets) == pytest.approx(expected, rel=1e-12)
    moved = 1e4 * logits + torch.randn(50, 1, generator=generator, dtype=torch.float64)
    assert soft_error(moved, targets) == pytest.approx(expected, rel=1e-9)  # whatever scale the logits have


def test_the_soft_error_is_one_half_where_nothing_is_told() -> None:
    targets = torch.tensor([0, 1, 2])
    assert soft_error(torch.ones(3, 3), targets) == 0.5
    assert math.isnan(soft_error(torch.full((3, 3), math.nan), targets))
    sure = 10 * torch.eye(3)
    assert soft_error(sure, targets) < 0.05 < 0.95 < soft_error(-sure, targets)
