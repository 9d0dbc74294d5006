"""The recipe refuses what cannot train and counts its steps."""

import math
import subprocess
import sys

import pytest

from evo_topo.recipe import LEAST_STEPS, Recipe


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("examples", 0),
        ("examples", 1000.0),
        ("examples", True),
        ("batch_size", 1),
        ("batch_doublings", -1),
        ("batch_doublings", 0.5),
        ("learning_rate", 0.0),
        ("learning_rate", math.inf),
        ("learning_rate", math.nan),
        ("momentum", 1.0),
        ("momentum", math.nan),
        ("weight_decay", -1e-4),
        ("weight_decay", math.nan),
        ("full_decay", -1),
        ("full_decay", 1e4),
        ("clip_norm", -1.0),
        ("clip_norm", math.inf),
        ("clip_norm", math.nan),
        ("warmup", 1.0),
        ("warmup", -0.1),
        ("crop_padding", -1),
        ("erase", 1.0),
        ("erase", -0.1),
        ("erase", math.nan),
        ("erase_from", -1),
        ("erase_from", 0.5),
        ("skip_easy", 1.0),
        ("skip_easy", -0.1),
        ("skip_easy", math.nan),
        ("label_smoothing", 1.0),
        ("label_smoothing", math.nan),
        ("calibration_examples", 1),
    ],
)
def test_unusable_value_is_refused_by_name(field: str, value: float) -> None:
    fields = {"examples": 1000, "learning_rate": 0.1} | {field: value}
    with pytest.raises(ValueError, match=f"^{field}: expected .* got {value!r}"):
        Recipe(**fields)


@pytest.mark.parametrize(
    ("examples", "batch_size", "steps"),
    [(640, 64, 10), (671, 64, 10), (673, 64, 11), (1, 64, 1)],
)
def test_steps_are_full_batches(examples: int, batch_size: int, steps: int) -> None:
    assert Recipe(examples=examples, batch_size=batch_size, learning_rate=0.1).steps == steps


@pytest.mark.parametrize(
    ("steps_of_64", "batch", "steps"),
    [
        (2 * LEAST_STEPS - 1, 64, 2 * LEAST_STEPS - 1),
        (2 * LEAST_STEPS, 128, LEAST_STEPS),
        (4 * LEAST_STEPS - 2, 128, 2 * LEAST_STEPS - 1),
        (4 * LEAST_STEPS, 256, LEAST_STEPS),
        (1000 * LEAST_STEPS, 256, 250 * LEAST_STEPS),
    ],
)
def test_long_trainings_double_their_batch_and_rate(steps_of_64: int, batch: int, steps: int) -> None:
    recipe = Recipe(examples=64 * steps_of_64, learning_rate=0.1, batch_doublings=2)
    assert (recipe.batch, recipe.steps) == (batch, steps)
    assert recipe.rate == 0.1 * batch / 64


def test_batches_are_as_given_unless_doubling_is_allowed() -> None:
    recipe = Recipe(examples=10**9, learning_rate=0.1)
    assert (recipe.batch, recipe.rate) == (64, 0.1)


def test_module_needs_only_the_standard_library() -> None:
    code = (
        "import runpy, sys; before = set(sys.modules); runpy.run_path(sys.argv[1]); "
        "print(*{m.split('.')[0] for m in set(sys.modules) - before} - sys.stdlib_module_names)"
    )
    path = sys.modules["evo_topo.recipe"].__file__
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""


@pytest.mark.parametrize(
    ("full_decay", "weights", "decay"),
    [(0, 10, 0.01), (1000, 10, 0.001), (1000, 250, 0.005), (1000, 1000, 0.01), (1000, 9999, 0.01)],
)
def test_few_weights_decay_less(full_decay: int, weights: int, decay: float) -> None:
    recipe = Recipe(examples=64, learning_rate=0.1, weight_decay=0.01, full_decay=full_decay)
    assert recipe.decay(weights) == pytest.approx(decay)


@pytest.mark.parametrize(
    ("erase_from", "weights", "erased"),
    [(0, 1, 0.25), (5000, 1000, 0.25), (5001, 1000, 0.0), (5001, 1001, 0.25)],
)
def test_images_lose_rectangles_where_many_weights_see_them_often(
    erase_from: int, weights: int, erased: float
) -> None:
    """Five passes over 200 examples."""
    recipe = Recipe(examples=1000, learning_rate=0.1, erase=0.25, erase_from=erase_from)
    assert recipe.erasing(weights, 200) == erased
