"""A task: what a network should learn, as tensors, split once and for all."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from evo_topo.ops import MAX_WIDTH
from evo_topo.splits import SPLITS, Split, check_split, mean_std, split_sizes, stratified_order


@dataclass(frozen=True, eq=False)
class Task:
    """A classification task with a fixed split.

    Inputs keep their type (uint8 or float32) and are normalised batch by batch, so images
    take one byte a pixel wherever they stand.

    Attributes:
        name: What it is called in reports.
        train: Examples that networks train on.
        validation: Examples that selection sees.
        test: Examples that are read once, at the end.
        num_classes: Number of classes; targets lie in [0, num_classes).
        mean: Per channel (C,), or per feature (F,), in units of the raw inputs.
        std: The same for the standard deviation.

    Raises:
        ValueError: If a split is empty, or shapes, types or values do not fit together.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    num_classes: int
    mean: Tensor
    std: Tensor

    def __post_init__(self) -> None:
        if self.num_classes < 2:
            raise ValueError(f"num_classes: expected at least 2, got {self.num_classes}")
        for label in SPLITS:
            check_split(f"{label} of {self.name!r}", getattr(self, label), self.num_classes)
            inputs = getattr(self, label).inputs
            if (inputs.shape[1:], inputs.dtype) != (self.input_shape, self.train.inputs.dtype):
                raise ValueError(
                    f"{label} of {self.name!r}: expected inputs like those of train, "
                    f"{self.input_shape} {self.train.inputs.dtype}, "
                    f"got {tuple(inputs.shape[1:])} {inputs.dtype}"
                )
        for label, low in (("mean", -torch.inf), ("std", 0.0)):
            value = getattr(self, label)
            inside = bool(((value > low) & (value < torch.inf)).all())
            if tuple(value.shape) != self.input_shape[:1] or not inside:
                raise ValueError(
                    f"{label} of {self.name!r}: expected {self.input_shape[0]} finite values"
                    f"{' > 0' if label == 'std' else ''}, one per channel, got {value}"
                )

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input: (F,), (C, L) or (C, H, W)."""
        return tuple(self.train.inputs.shape[1:])

    def normalise(self, inputs: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Makes raw inputs (N, ...) into what a network reads: ``(inputs - mean) / std``.

        Args:
            inputs: Raw inputs, on any device.
            dtype: Floating type of the result.

        Returns:
            A tensor of the same shape, on the device of ``inputs``; images in channels_last, in which
            convolutions run faster.
        """
        shape = (-1,) + (1,) * (inputs.ndim - 2)
        mean, std = (t.to(inputs.device, dtype).view(shape) for t in (self.mean, self.std))
        # made anew, for images of one channel already count as both: `contiguous` would leave them slow
        layout = torch.channels_last if inputs.ndim == 4 else torch.contiguous_format
        normal = torch.empty_like(inputs, dtype=dtype, memory_format=layout)
        return torch.sub(inputs, mean, out=normal).div_(std)

    def to(self, device: torch.device | str) -> "Task":
        """The same task with every tensor on ``device``; tensors already there are shared."""
        if self.mean.device == torch.device(device):
            return self
        train, validation, test = (
            Split(split.inputs.to(device), split.targets.to(device))
            for split in (self.train, self.validation, self.test)
        )
        mean, std = self.mean.to(device), self.std.to(device)
        return Task(self.name, train, validation, test, self.num_classes, mean, std)

    @classmethod
    def from_splits(cls, name: str, train: Split, validation: Split, test: Split, num_classes: int) -> Self:
        """Makes a task from ready splits; ``mean`` and ``std`` are those of ``train``.

        Args:
            name: What it is called in reports.
            train: Training examples.
            validation: Validation examples.
            test: Test examples.
            num_classes: Number of classes.

        Raises:
            ValueError: As for the class itself.
        """
        check_split(f"train of {name!r}", train, num_classes)
        return cls(name, train, validation, test, num_classes, *mean_std(train.inputs))

    @classmethod
    def from_arrays(
        cls,
        name: str,
        inputs: ArrayLike | Tensor,
        targets: ArrayLike | Tensor,
        *,
        num_classes: int | None = None,
        fractions: tuple[float, float, float] = (0.6, 0.2, 0.2),
        seed: int = 0,
    ) -> Self:
        """Makes a task from one's own data, split so that every class is spread evenly.

        Args:
            name: What it is called in reports.
            inputs: Features (N, F), sequences (N, C, L) or images (N, C, H, W). uint8 stays
                as it is, every other type becomes float32.
            targets: Class of each example (N,), whole numbers from 0.
            num_classes: Number of classes; by default the largest target + 1.
            fractions: Shares of train, validation and test; they sum to 1.
            seed: Decides which example goes where; the same seed gives the same split.

        Raises:
            ValueError: If the data, the targets or the fractions are unusable.
        """
        x, y = _as_tensor(inputs), _as_tensor(targets)
        if x.dtype != torch.uint8:
            x = x.float()
        if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
            raise ValueError(f"targets of {name!r}: expected whole numbers, got {y.dtype}")
        if num_classes is None:
            num_classes = int(y.max()) + 1 if y.numel() else 0
        if num_classes > MAX_WIDTH:
            raise ValueError(
                f"targets of {name!r}: expected at most {MAX_WIDTH:,} classes, got numbers up to "
                f"{num_classes - 1:,}; number the classes from 0"
            )
        whole = Split(x, y.long())
        check_split(f"{name!r}", whole, num_classes)
        sizes = split_sizes(len(y), fractions)
        order = torch.split(stratified_order(whole.targets, seed), sizes)
        train, validation, test = (Split(x[part], whole.targets[part]) for part in order)
        return cls.from_splits(name, train, validation, test, num_classes)


def _as_tensor(data: ArrayLike | Tensor) -> Tensor:
    """A tensor on the CPU; arrays are copied, for they may be read-only."""
    if isinstance(data, Tensor):
        return data.detach().cpu()
    array = np.asarray(data)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"expected arrays of numbers, got {array.dtype}; number the classes from 0")
    return torch.tensor(array)
