"""Fashion-MNIST: four IDX files (https://yann.lecun.com/exdb/mnist/), gzipped or not."""

import gzip
import zlib
from pathlib import Path

import torch
from torch import Tensor

from evo_topo.datasets.official import DatasetError, Official
from evo_topo.splits import Split

_FILES = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
_MNIST = [7, 2, 1, 0, 4, 1, 4, 9, 5, 9, 0, 6, 9, 0, 1, 5, 9, 7, 3, 4]
"""The first test labels of MNIST: its files have the same names and shapes."""


def read_fashion_mnist(root: Path) -> Official | None:
    """Reads the data set below ``root``.

    Args:
        root: Folder to look in.

    Returns:
        Training and test set; None where no file of it is there.

    Raises:
        DatasetError: If one of the four files is missing or damaged.
    """
    for folder in (root, root / "FashionMNIST" / "raw", root / "fashion-mnist"):
        if any((folder / f"{name}{end}").exists() for name in _FILES for end in ("", ".gz")):
            train, test = _idx_split(folder, "train"), _idx_split(folder, "t10k")
            if test.targets[: len(_MNIST)].tolist() == _MNIST:
                raise DatasetError(
                    f"{folder}: expected Fashion-MNIST, got MNIST; the names of its files are the same"
                )
            return train, test
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
