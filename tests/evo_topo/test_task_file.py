"""A task survives the disk."""

from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_wine

from evo_topo.splits import Split
from evo_topo.task import Task
from evo_topo.task_file import load_task, save_task
from tests.small import tensors_of, wine_task


@pytest.fixture(scope="module")
def wine() -> Task:
    return wine_task()


def test_saved_task_comes_back_and_leaves_nothing_else(wine: Task, tmp_path: Path) -> None:
    path = tmp_path / "wine.safetensors"
    save_task(wine, path)
    save_task(wine, path)  # over an older file
    loaded = load_task(path)
    assert all(map(torch.equal, tensors_of(wine), tensors_of(loaded)))
    assert (loaded.name, loaded.num_classes) == ("wine", 3)
    assert [p.name for p in tmp_path.iterdir()] == ["wine.safetensors"]


def test_views_of_one_array_can_be_saved(tmp_path: Path) -> None:
    data = load_wine()
    inputs, targets = torch.tensor(data.data).float(), torch.tensor(data.target)
    thirds = [Split(inputs[i::3], targets[i::3]) for i in range(3)]
    task = Task.from_splits("wine", *thirds, 3)
    save_task(task, tmp_path / "t")
    assert all(map(torch.equal, tensors_of(task), tensors_of(load_task(tmp_path / "t"))))


def test_loaded_tensors_are_mapped_from_the_file(wine: Task, tmp_path: Path) -> None:
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("needs /proc")
    path = tmp_path / "mapped.safetensors"
    save_task(wine, path)
    task = load_task(path)
    start = task.train.inputs.data_ptr()
    (line,) = [
        line
        for line in maps.read_text().splitlines()
        if int(line.split("-")[0], 16) <= start < int(line.split()[0].split("-")[1], 16)
    ]
    assert line.endswith(str(path))


def test_foreign_or_damaged_file_is_refused(wine: Task, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    foreign, damaged = tmp_path / "foreign", tmp_path / "damaged"
    save_file({"weight": torch.ones(2)}, foreign)
    save_task(wine, damaged)
    damaged.write_bytes(damaged.read_bytes()[:-1])
    for path in (foreign, damaged):
        with pytest.raises(ValueError, match=f"{path.name}: expected a task written by save_task"):
            load_task(path)
    with pytest.raises(FileNotFoundError):
        load_task(tmp_path / "absent")
