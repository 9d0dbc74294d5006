"""A teacher's answers enter the loss as they should, and help where targets are few."""

import math

import pytest
import torch

from evo_topo import build, evaluate, train
from evo_topo.datasets import load_dataset
from evo_topo.distillation import TEMPERATURE, Teaching
from evo_topo.recipe import Recipe
from evo_topo.task import Task
from tests.small import small_founder, small_task

RECIPE = Recipe(examples=6000, batch_size=32, learning_rate=0.05)


@pytest.fixture(scope="module")
def digits() -> Task:
    return load_dataset("digits")


def slow_loss(teaching, logits, targets, index):
    """One example after the other, one class after the other."""
    total = 0.0
    for row, target, number in zip(logits.tolist(), targets.tolist(), index.tolist(), strict=True):
        hard = -row[target] + math.log(sum(math.exp(value) for value in row))
        exps = [math.exp(value / TEMPERATURE) for value in row]
        soft = sum(
            p.item() * (p.log().item() - math.log(e / sum(exps)))
            for p, e in zip(teaching.answers[number], exps, strict=True)
        )
        total += (1 - teaching.share) * hard + teaching.share * TEMPERATURE**2 * soft
    return total / len(targets)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_loss_is_that_of_the_paper(share):
    generator = torch.Generator().manual_seed(0)
    answers = torch.softmax(torch.randn(20, 4, generator=generator, dtype=torch.float64), 1)
    logits = 3 * torch.randn(6, 4, generator=generator, dtype=torch.float64)
    targets, index = torch.tensor([0, 1, 2, 3, 1, 1]), torch.tensor([19, 3, 3, 0, 7, 11])
    teaching = Teaching(answers, share)
    found = teaching.losses(logits, targets, index, 0.0)
    assert found.mean().item() == pytest.approx(slow_loss(teaching, logits, targets, index), rel=1e-12)


def test_the_gradient_vanishes_where_the_pupil_answers_as_the_teacher():
    logits = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    teaching = Teaching(torch.softmax(logits.detach() / TEMPERATURE, 1), 1.0)
    teaching.losses(logits, torch.zeros(5, dtype=torch.int64), torch.arange(5), 0.1).mean().backward()
    assert logits.grad.abs().max() < 1e-15


def test_a_teacher_is_asked_about_every_example_and_stays_as_it_is(digits):
    teacher = build(small_founder()).train()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    teaching = Teaching.of(teacher, digits, 0.5)
    assert teaching.answers.shape == (len(digits.train.targets), 10)
    torch.testing.assert_close(teaching.answers.sum(1), torch.ones(len(teaching.answers)))
    assert teacher.training
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    with pytest.raises(ValueError, match="share: expected a number from 0 to 1"):
        Teaching.of(teacher, digits, 1.5)


def test_a_teacher_alone_teaches(digits):
    teacher, task = build(small_founder()), small_task()
    train(teacher, task, RECIPE, seed=0)
    pupil = build(small_founder(), seed=1)
    train(pupil, task, RECIPE, seed=1, teaching=Teaching.of(teacher, task, 1.0))
    taught, known = (evaluate(network, task.validation, task).accuracy for network in (pupil, teacher))
    assert known > 0.8
    assert taught > known - 0.06


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_a_blind_guess_is_judged_by_the_same_loss(digits, share):
    teaching = Teaching.of(build(small_founder(), seed=1), digits, share)
    targets = digits.train.targets
    blind = teaching.losses(torch.zeros(len(targets), 10), targets, torch.arange(len(targets)), 0.1).mean()
    assert teaching.blind_loss == pytest.approx(blind.item(), rel=1e-3)
