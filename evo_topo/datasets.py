"""Built-in data sets, read where they stand; downloaded only when they stand nowhere.

Files are read as bytes, from plain files, gzip or a tar archive, and nothing is written
beside them. Fashion-MNIST is in the IDX format. CIFAR's own format is a pickle, which could run
any code, so two locks stand before it: the bytes must have the MD5 sum that torchvision lists for
the published file, and the reader builds nothing but numpy arrays.
"""

import gzip
import hashlib
import http.client
import io
import os
import pickle
import socket
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from evo_topo.task import Split, Task

_SECONDS_TO_WAIT = 10.0
_SPLIT_SEED = 0

_Official = tuple[Split, Split]  # training and test set as published


class DatasetError(RuntimeError):
    """A data set is not there, or a file of it is damaged. The message says what helps."""


def load_dataset(name: str, data_dir: Path | None = None, download: bool = True) -> Task:
    """Loads a built-in data set as a task with a fixed split.

    ``digits`` comes with scikit-learn (1,797 images, 8 x 8, split 897 / 450 / 450). Of the
    others the official test set is ``test`` and 5,000 official training images are
    ``validation``. Images are uint8, (C, H, W). Searched in turn: ``data_dir``,
    ``$EVO_TOPO_DATA``, torchvision's folder (``~/.cache/torch/datasets/vision``), ``./data``
    and, for Fashion-MNIST, the folder of the Debian package ``dataset-fashion-mnist``.

    Args:
        name: One of ``DATASETS``.
        data_dir: Folder to search first, and to download to (by default ``$EVO_TOPO_DATA`` or
            torchvision's folder).
        download: Whether to download what is not found.

    Raises:
        ValueError: If the name is unknown.
        DatasetError: If the data are neither found nor downloaded, or a file is damaged.
    """
    if name not in DATASETS:
        raise ValueError(f"data set: expected one of {', '.join(DATASETS)}, got {name!r}")
    if data_dir is not None and not data_dir.is_dir():
        raise DatasetError(f"data_dir: expected a folder, got {data_dir}; create it or name another")
    if name == "digits":
        return _digits()
    images = _IMAGE_SETS[name]
    roots = [*_roots(data_dir), *images.more_roots]
    failure = "not tried"
    found = next(filter(None, map(images.read, roots)), None)
    if found is None and download:
        target = data_dir or roots[0]
        try:
            _download(name, target)
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            failure = f"failed ({error})"
        else:
            found = images.read(target)
    if found is None:
        raise DatasetError(_not_found(name, roots, failure))
    return _image_task(name, *found, images.num_classes)


def _digits() -> Task:
    """The handwritten digits of scikit-learn; pixels 0..16."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = digits.images.astype("uint8")[:, None]
    count = len(images)
    fractions = ((count - 900) / count, 450 / count, 450 / count)
    return Task.from_arrays("digits", images, digits.target, fractions=fractions, seed=_SPLIT_SEED)


def _image_task(name: str, train: Split, test: Split, num_classes: int) -> Task:
    """Holds out the last images of a fixed permutation of the training set for validation.

    They are 5,000, or a tenth where somebody keeps a small part of the published files.
    """
    count = len(train.targets)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(_SPLIT_SEED))
    held_out = min(5000, count // 10)
    kept, validation = (
        Split(train.inputs[part], train.targets[part])
        for part in (order[: count - held_out], order[count - held_out :])
    )
    return Task.from_splits(name, kept, validation, test, num_classes)


def _roots(data_dir: Path | None) -> list[Path]:
    """Folders that are searched for every data set, best first."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"))
    torch_home = Path(os.environ.get("TORCH_HOME", cache / "torch"))
    named = os.environ.get("EVO_TOPO_DATA")
    folders = [data_dir, Path(named) if named else None]
    folders += [torch_home / "datasets" / "vision", Path("data")]
    return [folder.expanduser() for folder in folders if folder is not None]


# --- Fashion-MNIST: four IDX files (https://yann.lecun.com/exdb/mnist/), gzipped or not


def _fashion_mnist(root: Path) -> _Official | None:
    """The data set below ``root``, or None if no file of it stands there."""
    for folder in (root, root / "FashionMNIST" / "raw", root / "fashion-mnist"):
        if any(folder.glob("*-idx?-ubyte*")):
            return _idx_split(folder, "train"), _idx_split(folder, "t10k")
    return None


def _idx_split(folder: Path, part: str) -> Split:
    inputs = _read_idx(folder / f"{part}-images-idx3-ubyte", 3)
    targets = _read_idx(labels := folder / f"{part}-labels-idx1-ubyte", 1)
    if len(inputs) != len(targets) or targets.max() > 9:
        raise DatasetError(
            f"{labels}: expected {len(inputs)} labels 0..9, got {len(targets)} "
            f"up to {int(targets.max())}; replace the file"
        )
    return Split(inputs[:, None], targets.long())


def _read_idx(path: Path, dimensions: int) -> Tensor:
    """A uint8 tensor: magic 0 0 8 d, then d big-endian int32 sizes, then the bytes."""
    packed = path.with_name(f"{path.name}.gz")
    try:
        data = bytearray(path.read_bytes() if path.is_file() else gzip.decompress(packed.read_bytes()))
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: expected it or its .gz, got neither; copy it there") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"{packed}: damaged ({error}); replace it") from error
    start = 4 * (dimensions + 1)
    shape = [int.from_bytes(data[i : i + 4], "big") for i in range(4, start, 4)]
    size = start + torch.Size(shape).numel()
    if data[:4] != bytes((0, 0, 8, dimensions)) or len(data) != size or size == start:
        raise DatasetError(
            f"{path}: expected an IDX file of bytes in {dimensions} dimensions, "
            f"got header {bytes(data[:start]).hex()} and {len(data)} bytes; replace the file"
        )
    return torch.frombuffer(data, dtype=torch.uint8, offset=start).view(shape)


# --- CIFAR: pickled dictionaries (https://www.cs.toronto.edu/~kriz/cifar.html)


def _cifar(root: Path, kind: str, labels: str) -> _Official | None:
    """The data set in the folder or the archive below ``root``, or None if neither is there.

    ``kind`` names torchvision's class, which lists the files and their MD5 sums.
    """
    from torchvision import datasets

    table = getattr(datasets, kind)
    folder, archive = root / table.base_folder, root / table.filename
    sums = dict(table.train_list + table.test_list)
    if folder.is_dir():
        where, files = (
            folder,
            {n: (folder / n).read_bytes() for n in sums if (folder / n).is_file()},
        )
    elif archive.is_file():
        where, files = archive, _read_archive(archive, {f"{table.base_folder}/{n}" for n in sums})
    else:
        return None
    batches = {}
    for name, md5 in sums.items():
        data = files.get(name, b"")
        if hashlib.md5(data, usedforsecurity=False).hexdigest() != md5:
            raise DatasetError(
                f"{where / name}: expected the published file (MD5 {md5}), "
                f"got {f'{len(data)} other bytes' if data else 'none'}; replace it"
            )
        batches[name] = _read_batch(data, labels)
    train, test = (
        Split(*(torch.cat(t) for t in zip(*(batches[n] for n, _ in part), strict=True)))
        for part in (table.train_list, table.test_list)
    )
    return train, test


def _read_archive(path: Path, members: set[str]) -> dict[str, bytes]:
    """Contents of the named members, by their last name."""
    try:
        with tarfile.open(path, "r|gz") as archive:
            files = ((m.name, archive.extractfile(m)) for m in archive if m.name in members)
            return {Path(name).name: file.read() for name, file in files if file}
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise DatasetError(f"{path}: damaged ({error}); replace it") from error


def _read_batch(data: bytes, labels: str) -> tuple[Tensor, Tensor]:
    """Images (N, 3, 32, 32) and labels (N,) of one verified file."""
    batch = _ArrayUnpickler(io.BytesIO(data), encoding="latin1").load()
    return torch.tensor(batch["data"]).view(-1, 3, 32, 32), torch.tensor(batch[labels])


class _ArrayUnpickler(pickle.Unpickler):
    """Builds numpy arrays, numbers, text and their containers, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        import numpy as np

        # CIFAR was pickled with align=0, at which numpy warns today: leave the argument out
        if module.startswith("numpy") and name == "dtype":
            return lambda code, *_: np.dtype(code)
        if module.startswith("numpy") and name == "ndarray":
            return np.ndarray
        if module.startswith("numpy") and name == "_reconstruct":
            return lambda *_: np.ndarray(0)  # its state, shape and type included, follows
        raise DatasetError(f"CIFAR file: expected numpy arrays only, got {module}.{name}")


# --- download


def _download(name: str, root: Path) -> None:
    """Fetches the published files of a data set to where they are then found below ``root``."""
    from torchvision import datasets
    from torchvision.datasets.utils import download_url

    if name == "fashion-mnist":
        folder, table = root / "FashionMNIST" / "raw", datasets.FashionMNIST
        files = [(table.mirrors[0] + file, file, md5) for file, md5 in table.resources]
    else:
        folder, cifar = root, {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
        files = [(cifar.url, cifar.filename, cifar.tgz_md5)]
    folder.mkdir(parents=True, exist_ok=True)
    # fetched aside and moved when all are whole: a broken download is never found later
    with tempfile.TemporaryDirectory(dir=folder) as aside, _network_timeout():
        for url, file, md5 in files:
            download_url(url, aside, file, md5)
        for _, file, _ in files:
            os.replace(Path(aside) / file, folder / file)


@contextmanager
def _network_timeout() -> Iterator[None]:
    """Gives up on a silent network: torchvision sets no limit of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_SECONDS_TO_WAIT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _not_found(name: str, roots: list[Path], failure: str) -> str:
    """What was searched, and what helps without a network."""
    searched = "\n".join(f"  {root.absolute()}" for root in roots)
    return (
        f"{name} is not on this computer. Searched:\n{searched}\nDownload: {failure}.\n"
        f"Without a network: use digits, which needs no files, or {_IMAGE_SETS[name].offline}."
    )


class _ImageSet(NamedTuple):
    """How a published image set is read below a folder, and what to do without a network."""

    read: Callable[[Path], _Official | None]
    num_classes: int
    offline: str
    more_roots: tuple[Path, ...] = ()


_IMAGE_SETS = {
    "fashion-mnist": _ImageSet(
        _fashion_mnist,
        10,
        "install the Debian package dataset-fashion-mnist, or copy its four files "
        "(train-images-idx3-ubyte.gz, ...) into the folder given by --data-dir",
        (Path("/usr/share/datasets/fashion-mnist"),),
    ),
    "cifar10": _ImageSet(
        partial(_cifar, kind="CIFAR10", labels="labels"),
        10,
        "copy cifar-10-python.tar.gz into the folder given by --data-dir",
    ),
    "cifar100": _ImageSet(
        partial(_cifar, kind="CIFAR100", labels="fine_labels"),
        100,
        "copy cifar-100-python.tar.gz into the folder given by --data-dir",
    ),
}

DATASETS = ("digits", *_IMAGE_SETS)
"""Names that ``load_dataset`` knows."""
