"""CIFAR: pickled dictionaries (https://www.cs.toronto.edu/~kriz/cifar.html), in a folder or a tar archive.

A pickle could run any code, so two locks stand before it: the bytes must have the MD5 sum that torchvision
lists for the published file, and the reader builds nothing but numpy arrays.
"""

import hashlib
import io
import pickle
import tarfile
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evo_topo.datasets.official import DatasetError, Official
from evo_topo.splits import Split


def read_cifar(root: Path, kind: str, labels: str) -> Official | None:
    """Reads the data set in the folder or the archive below ``root``.

    Args:
        root: Folder to look in.
        kind: Name of torchvision's class, which lists the files and their MD5 sums.
        labels: Key of the labels in each file.

    Returns:
        Training and test set; None where neither folder nor archive is there.

    Raises:
        DatasetError: If a file is missing or differs from the published one.
    """
    from torchvision import datasets

    table = getattr(datasets, kind)
    folder, archive = root / table.base_folder, root / table.filename
    sums = dict(table.train_list + table.test_list)
    if folder.is_dir():
        where = folder
        files = {n: (folder / n).read_bytes() for n in sums if (folder / n).is_file()}
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
