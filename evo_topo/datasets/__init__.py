"""Built-in data sets, read where they stand; downloaded only when they stand nowhere.

Files are read as bytes, from plain files, gzip or a tar archive, and nothing is written
beside them.
"""

import http.client
import os
from functools import partial
from pathlib import Path

import torch

from evo_topo.datasets.cifar import read_cifar
from evo_topo.datasets.download import download_files
from evo_topo.datasets.fashion_mnist import read_fashion_mnist
from evo_topo.datasets.official import DatasetError, ImageSet
from evo_topo.splits import Split
from evo_topo.task import Task

__all__ = ["DATASETS", "DatasetError", "load_dataset"]

_SPLIT_SEED = 0


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
            download_files(name, target)
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
    try:
        return Task.from_splits(name, kept, validation, test, num_classes)
    except ValueError as error:
        raise DatasetError(f"{error}; replace its files") from None


def _roots(data_dir: Path | None) -> list[Path]:
    """Folders that are searched for every data set, best first."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"))
    torch_home = Path(os.environ.get("TORCH_HOME", cache / "torch"))
    named = os.environ.get("EVO_TOPO_DATA")
    folders = [data_dir, Path(named) if named else None]
    folders += [torch_home / "datasets" / "vision", Path("data")]
    # os.path leaves a user that is not known as it stands; Path raises
    return [Path(os.path.expanduser(folder)) for folder in folders if folder is not None]


def _not_found(name: str, roots: list[Path], failure: str) -> str:
    """What was searched, and what helps without a network."""
    searched = "\n".join(f"  {root.absolute()}" for root in roots)
    return (
        f"{name} is not on this computer. Searched:\n{searched}\nDownload: {failure}.\n"
        f"Without a network: use digits, which needs no files, or {_IMAGE_SETS[name].offline}."
    )


_IMAGE_SETS = {
    "fashion-mnist": ImageSet(
        read_fashion_mnist,
        10,
        "install the Debian package dataset-fashion-mnist, or copy its four files "
        "(train-images-idx3-ubyte.gz, ...) into the folder given by --data-dir",
        (Path("/usr/share/datasets/fashion-mnist"),),
    ),
    "cifar10": ImageSet(
        partial(read_cifar, kind="CIFAR10", labels="labels"),
        10,
        "copy cifar-10-python.tar.gz into the folder given by --data-dir",
    ),
    "cifar100": ImageSet(
        partial(read_cifar, kind="CIFAR100", labels="fine_labels"),
        100,
        "copy cifar-100-python.tar.gz into the folder given by --data-dir",
    ),
}

DATASETS = ("digits", *_IMAGE_SETS)
"""Names that ``load_dataset`` knows."""
