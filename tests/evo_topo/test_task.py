"""A task holds consistent data and splits it fairly."""

import functools

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_digits, load_wine

from evo_topo.splits import Split
from evo_topo.task import Task
from tests.small import tensors_of, wine_task

cached_digits = functools.cache(load_digits)


@pytest.fixture(scope="module")
def wine() -> Task:
    return wine_task()


def test_every_example_lands_in_one_split(wine: Task) -> None:
    rows = torch.cat([wine.train.inputs, wine.validation.inputs, wine.test.inputs])
    targets = torch.cat([wine.train.targets, wine.validation.targets, wine.test.targets])
    data = load_wine()
    got = sorted(map(tuple, torch.column_stack([rows, targets]).tolist()))
    want = np.column_stack([data.data, data.target]).astype(np.float32)
    assert got == sorted(map(tuple, want.tolist()))
    assert [len(s.targets) for s in (wine.train, wine.validation, wine.test)] == [106, 36, 36]


@pytest.mark.parametrize("load", [load_wine, load_breast_cancer, cached_digits])
def test_split_is_stratified(load) -> None:
    data = load()
    task = Task.from_arrays("t", data.data, data.target, fractions=(0.5, 0.3, 0.2), seed=3)
    ideal = np.bincount(data.target)
    for split, share in zip((task.train, task.validation, task.test), (0.5, 0.3, 0.2), strict=True):
        assert np.abs(np.bincount(split.targets) - share * ideal).max() <= 2


def test_same_seed_same_split_and_another_seed_another(wine: Task) -> None:
    data = load_wine()
    again, other = (Task.from_arrays("wine", data.data, data.target, seed=s) for s in (0, 1))
    assert all(map(torch.equal, tensors_of(wine), tensors_of(again)))
    assert not torch.equal(wine.test.inputs, other.test.inputs)


@pytest.mark.parametrize("shape", [(64,), (4, 16), (4, 4, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_normalised_training_inputs_have_mean_zero_and_unit_variance(shape, dtype) -> None:
    data = cached_digits()
    inputs = data.data.reshape(-1, *shape).astype(dtype)
    task = Task.from_arrays("digits", inputs, data.target)
    assert task.input_shape == shape
    assert task.train.inputs.dtype == (torch.uint8 if dtype is np.uint8 else torch.float32)
    normal = task.normalise(task.train.inputs, torch.float64)
    dims = [d for d in range(normal.ndim) if d != 1]
    raw = np.asarray(task.train.inputs, dtype=np.float64)
    constant = torch.from_numpy(raw.std(axis=tuple(dims)) == 0)  # corner pixels stay at zero
    assert normal.mean(dims).abs().max() < 1e-5
    torch.testing.assert_close(normal.std(dims, correction=0), (~constant).double(), atol=1e-5, rtol=0)
    assert task.normalise(task.train.inputs[:5]).dtype == torch.float32


@pytest.mark.parametrize("channels", [1, 3])
def test_normalised_images_have_their_channels_last(channels) -> None:
    """By their strides: of one channel, torch takes any layout for channels_last."""
    data = cached_digits()
    inputs = np.tile(data.data.reshape(-1, 1, 8, 8), (1, channels, 1, 1)).astype(np.uint8)
    task = Task.from_arrays("digits", inputs, data.target)
    assert task.normalise(task.train.inputs[:5]).stride() == (64 * channels, 1, 8 * channels, channels)


def test_read_only_arrays_are_welcome() -> None:
    data = load_wine()
    data.data.setflags(write=False)
    assert Task.from_arrays("wine", data.data, data.target.astype(np.int32)).num_classes == 3


def poisoned(array: np.ndarray, value: float) -> np.ndarray:
    array = array.copy()
    array[7, 0] = value
    return array


WINE = load_wine()


@pytest.mark.parametrize(
    ("inputs", "targets", "options", "message"),
    [
        (WINE.data, WINE.target[:-1], {}, "one int64 target for each of 178"),
        (WINE.data, WINE.target - 1, {}, r"targets in 0\.\.1, got -1\.\.1"),
        (WINE.data, WINE.target, {"num_classes": 2}, r"targets in 0\.\.1, got 0\.\.2"),
        (WINE.data, WINE.target.astype(float), {}, "whole numbers"),
        (WINE.data, WINE.target * 0, {}, r"num_classes: expected at least 2"),
        (poisoned(WINE.data, np.nan), WINE.target, {}, "finite inputs"),
        (poisoned(WINE.data, np.inf), WINE.target, {}, "finite inputs"),
        (WINE.data[:, 0], WINE.target, {}, r"\(N, F\)"),
        (WINE.data[:0], WINE.target[:0], {}, "at least one example"),
        (WINE.data, WINE.target, {"fractions": (0.5, 0.5, 0.0)}, "three positive shares"),
        (WINE.data, WINE.target, {"fractions": (0.5, 0.2, 0.2)}, "three positive shares"),
        (WINE.data[58:60], WINE.target[58:60], {}, "examples enough"),
    ],
)
def test_unusable_data_are_refused(inputs, targets, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        Task.from_arrays("wine", inputs, targets, **options)


def test_splits_must_agree(wine: Task) -> None:
    narrow = Split(wine.test.inputs[:, :5], wine.test.targets)
    with pytest.raises(ValueError, match=r"test of 'wine': expected inputs like those of train"):
        Task.from_splits("wine", wine.train, wine.validation, narrow, 3)
    with pytest.raises(ValueError, match="std of 'wine': expected 13 finite values > 0"):
        Task("wine", wine.train, wine.validation, wine.test, 3, wine.mean, wine.std * 0)
    with pytest.raises(ValueError, match="mean of 'wine': expected 13 finite values"):
        Task("wine", wine.train, wine.validation, wine.test, 3, wine.mean[:3], wine.std)


def test_to_keeps_the_data(wine: Task) -> None:
    assert wine.to("cpu") is wine
    assert wine.to("cpu").to(torch.device("cpu")).train.inputs is wine.train.inputs


def test_labels_that_are_no_class_numbers_are_refused() -> None:
    inputs = np.random.default_rng(0).random((30, 4))
    with pytest.raises(ValueError, match=r"at most .* classes, got numbers up to 1,000,000,000"):
        Task.from_arrays("ids", inputs, np.array([0, 90_210, 10**9] * 10))
    with pytest.raises(ValueError, match="number the classes from 0"):
        Task.from_arrays("names", inputs, np.array(["cat", "dog", "cow"] * 10))
