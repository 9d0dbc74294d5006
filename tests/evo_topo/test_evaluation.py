"""Measurements agree with a slow reference."""

import pytest
import torch
from torch import nn

from evo_topo import build
from evo_topo.datasets import load_dataset
from evo_topo.evaluation import evaluate, reestimate_batchnorm
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
