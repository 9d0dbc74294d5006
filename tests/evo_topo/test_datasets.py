"""Built-in data sets are read as published, and every failure says what helps."""

import functools
import gzip
import hashlib
import io
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torchvision import datasets as published
from torchvision.datasets import utils

from evo_topo.datasets import DATASETS, DatasetError, load_dataset

DEBIAN = Path("/usr/share/datasets/fashion-mnist")


@pytest.fixture(autouse=True)
def bare_computer(tmp_path, monkeypatch):
    """No data set in the usual folders, and no network."""
    for name in ("TORCH_HOME", "EVO_TOPO_DATA"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.chdir(tmp_path)

    def refuse(*_args, **_options):
        raise OSError("no network")

    monkeypatch.setattr(utils, "download_url", refuse)


cached_digits = functools.cache(load_digits)


def pictures(count: int, *shape: int) -> tuple[np.ndarray, np.ndarray]:
    """Real digits, cut or tiled to any shape."""
    digits = cached_digits()
    side = np.tile(digits.images[:count].astype(np.uint8), (1, 4, 4))[:, : shape[-2], : shape[-1]]
    images = side if len(shape) == 2 else np.stack([side, side + 1, side + 2], axis=1)
    return images, digits.target[:count].astype(np.uint8)


def write_idx(path: Path, array: np.ndarray) -> None:
    data = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}i", *array.shape)
    data += array.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data, 1) if path.suffix == ".gz" else data)


def write_fashion(folder: Path, suffix: str = "") -> None:
    for part, count in (("train", 100), ("t10k", 20)):
        images, labels = pictures(count, 28, 28)
        write_idx(folder / f"{part}-images-idx3-ubyte{suffix}", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte{suffix}", labels)


def old_pickle(images: np.ndarray, key: str, labels: list[int]) -> bytes:
    """A dictionary as Python 2 and its numpy pickled it: the format of the published files."""

    def text(value: bytes) -> bytes:
        return b"T" + struct.pack("<i", len(value)) + value

    dtype = b"cnumpy\ndtype\n(" + text(b"u1") + b"K\x00K\x01tR(K\x03" + text(b"|")
    dtype += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + text(b"b") + b"tR("
    array += b"K\x01(" + b"".join(b"J" + struct.pack("<i", n) for n in images.shape) + b"t"
    array += dtype + b"\x89" + text(images.tobytes()) + b"tb"
    listed = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(key.encode()) + listed + b"u."


def write_cifar(root: Path, kind, key: str, monkeypatch, archive: bool = False) -> None:
    """Small files in CIFAR's format, and their sums in the place of the published ones."""
    files = {}
    for table in ("train_list", "test_list"):
        entries = []
        for name, _ in getattr(kind, table):
            images, labels = pictures(40, 3, 32, 32)
            files[name] = old_pickle(images.reshape(40, -1), key, labels.tolist())
            entries.append([name, hashlib.md5(files[name]).hexdigest()])
        monkeypatch.setattr(kind, table, entries)
    if archive:
        with tarfile.open(root / kind.filename, "w:gz", compresslevel=1) as tar:
            for name, data in files.items():
                member = tarfile.TarInfo(f"{kind.base_folder}/{name}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    else:
        (root / kind.base_folder).mkdir()
        for name, data in files.items():
            (root / kind.base_folder / name).write_bytes(data)


def test_digits() -> None:
    task = load_dataset("digits")
    sizes = [len(split.targets) for split in (task.train, task.validation, task.test)]
    assert (sizes, task.input_shape, task.num_classes) == ([897, 450, 450], (1, 8, 8), 10)
    images = torch.cat([task.train.inputs, task.validation.inputs, task.test.inputs])
    assert int(images.sum()) == int(load_digits().images.sum())
    assert torch.equal(task.test.inputs, load_dataset("digits").test.inputs)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("folder", [".", "FashionMNIST/raw", "fashion-mnist"])
def test_fashion_mnist_is_read_where_it_stands(tmp_path, folder: str, suffix: str) -> None:
    write_fashion(tmp_path / folder, suffix)
    before = sorted(tmp_path.rglob("*"))
    task = load_dataset("fashion-mnist", tmp_path)
    assert sorted(tmp_path.rglob("*")) == before
    assert [len(s.targets) for s in (task.train, task.validation, task.test)] == [90, 10, 20]
    images, labels = pictures(20, 28, 28)
    assert np.array_equal(task.test.inputs[:, 0], images)
    assert np.array_equal(task.test.targets, labels)


def test_installed_fashion_mnist(tmp_path) -> None:
    if not DEBIAN.is_dir():
        pytest.skip("needs the Debian package dataset-fashion-mnist")
    task = load_dataset("fashion-mnist", download=False)
    sizes = [len(split.targets) for split in (task.train, task.validation, task.test)]
    assert (sizes, task.input_shape) == ([55_000, 5_000, 10_000], (1, 28, 28))
    assert torch.bincount(task.test.targets).tolist() == [1000] * 10
    # the widely published statistics of the training set
    assert torch.allclose(task.mean / 255, torch.tensor([0.2860]), atol=1e-3)
    assert torch.allclose(task.std / 255, torch.tensor([0.3530]), atol=1e-3)


@pytest.mark.parametrize("archive", [False, True])
@pytest.mark.parametrize(
    ("name", "kind", "key", "batches"),
    [
        ("cifar10", published.CIFAR10, "labels", 5),
        ("cifar100", published.CIFAR100, "fine_labels", 1),
    ],
)
def test_cifar(tmp_path, monkeypatch, name, kind, key, batches, archive) -> None:
    write_cifar(tmp_path, kind, key, monkeypatch, archive)
    task = load_dataset(name, tmp_path)
    sizes = [len(split.targets) for split in (task.train, task.validation, task.test)]
    assert sizes == [36 * batches, 4 * batches, 40]
    assert task.num_classes == int(name.removeprefix("cifar"))
    images, labels = pictures(40, 3, 32, 32)
    assert np.array_equal(task.test.inputs, images)
    assert np.array_equal(task.test.targets, labels)


def test_altered_cifar_is_never_unpickled(tmp_path, monkeypatch) -> None:
    write_cifar(tmp_path, published.CIFAR10, "labels", monkeypatch)
    path = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(b"cos\nmkdir\n(S'ran'\ntR.")
    with pytest.raises(DatasetError, match="data_batch_3: expected the published file"):
        load_dataset("cifar10", tmp_path)
    assert not Path("ran").exists()


def test_second_lock_holds_when_the_sum_agrees(tmp_path, monkeypatch) -> None:
    write_cifar(tmp_path, published.CIFAR100, "fine_labels", monkeypatch)
    attack = pickle.dumps(Path.cwd)
    (tmp_path / "cifar-100-python" / "test").write_bytes(attack)
    monkeypatch.setattr(published.CIFAR100, "test_list", [["test", hashlib.md5(attack).hexdigest()]])
    with pytest.raises(DatasetError, match="expected numpy arrays only, got"):
        load_dataset("cifar100", tmp_path)


def test_missing_cifar_file_is_named(tmp_path, monkeypatch) -> None:
    write_cifar(tmp_path, published.CIFAR10, "labels", monkeypatch)
    (tmp_path / "cifar-10-batches-py" / "test_batch").unlink()
    with pytest.raises(DatasetError, match=r"test_batch: expected .* got none"):
        load_dataset("cifar10", tmp_path)


@pytest.mark.parametrize("damage", [lambda d: d[: len(d) // 2], lambda d: b"not gzip" + d])
def test_damaged_archive_is_named(tmp_path, monkeypatch, damage) -> None:
    write_cifar(tmp_path, published.CIFAR100, "fine_labels", monkeypatch, archive=True)
    write_fashion(tmp_path, ".gz")
    for name, file, message in (
        ("cifar100", "cifar-100-python.tar.gz", "(: damaged|/(train|test): expected .* got none)"),
        ("fashion-mnist", "t10k-labels-idx1-ubyte.gz", ": damaged"),
    ):
        path = tmp_path / file
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(DatasetError, match=file + message):
            load_dataset(name, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:-1], "expected an IDX file"),
        (lambda data: b"\x00\x00\x0d" + data[3:], "expected an IDX file"),
        (lambda data: data[:5], "expected an IDX file"),
        (lambda data: data[:-1] + b"\x0a", r"20 labels 0\.\.9, got 20 up to 10"),
        (lambda data: data[:7] + b"\x05" + data[8:13], r"20 labels 0\.\.9, got 5"),
        (None, "expected it or its .gz, got neither"),
    ],
)
def test_damaged_labels_are_named(tmp_path, change, message) -> None:
    write_fashion(tmp_path)
    path = tmp_path / "t10k-labels-idx1-ubyte"
    if change is None:
        path.unlink()
    else:
        path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DatasetError, match=f"{path.name}: {'' if change is None else '.*'}{message}"):
        load_dataset("fashion-mnist", tmp_path)


@pytest.mark.parametrize("download", [True, False])
def test_absent_data_set_lists_places_and_remedies(tmp_path, download: bool) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(DatasetError) as caught:
        load_dataset("cifar10", tmp_path / "mine", download)
    message = str(caught.value)
    places = ("mine", "EVO_TOPO_DATA", "TORCH_HOME/datasets/vision", "data")
    assert all(f"  {tmp_path / place}\n" in message for place in places)
    assert ("failed (no network)" in message, "not tried" in message) == (download, not download)
    assert "use digits" in message
    assert "cifar-10-python.tar.gz" in message
    assert not list((tmp_path / "mine").iterdir())


def test_download_lands_in_the_folder_and_is_found_again(tmp_path, monkeypatch) -> None:
    (tmp_path / "source").mkdir()
    write_cifar(tmp_path / "source", published.CIFAR100, "fine_labels", monkeypatch, archive=True)

    def copy(url: str, root: str, filename: str, md5: str) -> None:
        assert (url, md5) == (published.CIFAR100.url, published.CIFAR100.tgz_md5)
        (Path(root) / filename).write_bytes((tmp_path / "source" / filename).read_bytes())

    monkeypatch.setattr(utils, "download_url", copy)
    first = load_dataset("cifar100")
    again = load_dataset("cifar100", download=False)
    assert torch.equal(first.train.inputs, again.train.inputs)
    assert [p.name for p in (tmp_path / "EVO_TOPO_DATA").iterdir()] == ["cifar-100-python.tar.gz"]


def test_wrong_names_are_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match=f"expected one of {', '.join(DATASETS)}, got 'mnist'"):
        load_dataset("mnist")
    with pytest.raises(DatasetError, match="data_dir: expected a folder"):
        load_dataset("digits", tmp_path / "absent")


def test_mnist_is_not_taken_for_fashion_mnist(tmp_path) -> None:
    write_fashion(tmp_path)
    labels = np.array(
        [7, 2, 1, 0, 4, 1, 4, 9, 5, 9, 0, 6, 9, 0, 1, 5, 9, 7, 3, 4], np.uint8
    )  # its test split
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", labels)
    with pytest.raises(DatasetError, match="got MNIST"):
        load_dataset("fashion-mnist", tmp_path)


def test_files_of_another_set_are_passed_by(tmp_path) -> None:
    write_idx(tmp_path / "emnist-letters-train-images-idx3-ubyte.gz", pictures(5, 28, 28)[0])
    write_fashion(tmp_path / "FashionMNIST" / "raw")
    assert load_dataset("fashion-mnist", tmp_path).input_shape == (1, 28, 28)


def test_splits_that_do_not_fit_together_are_named(tmp_path) -> None:
    write_fashion(tmp_path)
    write_idx(tmp_path / "t10k-images-idx3-ubyte", pictures(20, 14, 14)[0])
    with pytest.raises(DatasetError, match="expected inputs like those of train"):
        load_dataset("fashion-mnist", tmp_path)
