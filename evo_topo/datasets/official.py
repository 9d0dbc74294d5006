"""What all published image sets have in common."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from evo_topo.splits import Split

Official = tuple[Split, Split]
"""Training and test set as published."""


class DatasetError(RuntimeError):
    """A data set is not there, or a file of it is damaged. The message says what helps."""


class ImageSet(NamedTuple):
    """How a published image set is read below a folder, and what to do without a network."""

    read: Callable[[Path], Official | None]
    num_classes: int
    offline: str
    more_roots: tuple[Path, ...] = ()
