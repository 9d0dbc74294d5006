"""A step that reads tables, and one that is replayed, train as the plain one does."""

import pytest
import torch
from torch import nn

from evo_topo.batches import Sampler
from evo_topo.captured import CapturedStep, TabledStep, stepper
from evo_topo.datasets import load_dataset
from evo_topo.distillation import Teaching
from evo_topo.recipe import Recipe
from evo_topo.stepping import Step
from evo_topo.task import Task

RECIPES = [
    Recipe(examples=64 * 20, learning_rate=0.05),
    Recipe(examples=64 * 20, learning_rate=0.05, crop_padding=1),
    Recipe(examples=64 * 20, learning_rate=0.05, crop_padding=1, flip=True),
    Recipe(examples=64 * 20, learning_rate=0.05, crop_padding=1, flip=True, erase=0.25),
    Recipe(examples=64 * 60, learning_rate=0.05, skip_easy=0.5, clip_norm=0.5),
]


@pytest.fixture(scope="module")
def digits() -> Task:
    return load_dataset("digits")


def small_net(dropout: float = 0.0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(128, 10),
        )


def losses_of(step: Step | TabledStep, task: Task, recipe: Recipe) -> list[float]:
    """Losses of a training, then over, whose rate falls step by step, in batches that do not depend on it."""
    generator = torch.Generator(task.train.inputs.device).manual_seed(0)
    losses: list[torch.Tensor] = []
    sampler = Sampler(len(task.train.targets), recipe, 8, generator, step.last_losses)
    for batches in sampler:
        step.load(batches)
        for _ in batches.examples:
            step.set_rate(recipe.learning_rate * (1 - len(losses) / recipe.steps))
            losses.append(step())
    step.close()
    return torch.stack(losses).tolist()  # read at the end: each still holds its own value


def teaching_of(task: Task) -> Teaching:
    return Teaching.of(small_net().to(task.train.inputs.device), task, 0.5)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("taught", [False, True])
def test_tables_change_nothing(digits: Task, recipe: Recipe, taught: bool) -> None:
    teaching = teaching_of(digits) if taught else None
    plain, tabled = small_net(), small_net()
    expected = losses_of(Step(plain, digits, recipe, teaching), digits, recipe)
    assert losses_of(TabledStep(Step(tabled, digits, recipe, teaching)), digits, recipe) == expected
    pairs = zip(plain.state_dict().values(), tabled.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert len(set(expected)) == recipe.steps


@pytest.mark.gpu
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("taught", [False, True])
def test_a_captured_step_gives_the_losses_of_a_launched_one(
    digits: Task, recipe: Recipe, taught: bool
) -> None:
    task = digits.to("cuda")
    teaching = teaching_of(task) if taught else None
    captured = CapturedStep(Step(small_net().cuda(), task, recipe, teaching))
    losses = losses_of(captured, task, recipe)
    launched = losses_of(Step(small_net().cuda(), task, recipe, teaching), task, recipe)
    assert captured._graph is not None
    assert losses == pytest.approx(launched, rel=0.02)


@pytest.mark.gpu
def test_each_replay_draws_its_own_dropout(digits: Task) -> None:
    recipe = Recipe(examples=64 * 20, learning_rate=1e-9, warmup=0)
    task, model = digits.to("cuda"), small_net(dropout=0.5).cuda()
    step = CapturedStep(Step(model, task, recipe, None))
    generator = torch.Generator("cuda").manual_seed(0)
    batches = next(iter(Sampler(64, recipe, recipe.steps, generator, None)))
    same = batches.examples[:1].expand_as(
        batches.examples
    )  # one batch again and again, at a rate of nearly zero
    step.load(batches._replace(examples=same))
    losses = [step() for _ in range(recipe.steps)]
    assert step._graph is not None
    assert len(set(torch.stack(losses).tolist())) == recipe.steps


@pytest.mark.gpu
def test_what_cannot_be_captured_is_launched(digits: Task) -> None:
    class Waits(nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return inputs * inputs.flatten()[0].isfinite().item()  # waits for the device

    recipe, task = RECIPES[1], digits.to("cuda")
    before, model = torch.cuda.get_rng_state(), nn.Sequential(Waits(), *small_net()).cuda()
    step = CapturedStep(Step(model, task, recipe, None))
    losses = losses_of(step, task, recipe)
    launched = losses_of(Step(small_net().cuda(), task, recipe, None), task, recipe)
    assert step._graph is None
    assert torch.equal(torch.cuda.get_rng_state(), before)
    torch.nn.functional.dropout(torch.ones(9, device="cuda"))  # random numbers are drawn as before
    assert losses == pytest.approx(launched, rel=0.02)


def test_the_step_fits_its_device(digits: Task) -> None:
    step = stepper(small_net(), digits, RECIPES[0], None)
    assert isinstance(step, Step)  # no GPU is asked for on the CPU
