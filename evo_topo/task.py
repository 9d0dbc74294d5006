"""A task: what a network should learn, as tensors, split once and for all."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

_SPLITS = ("train", "validation", "test")
_CHUNK = 4096  # examples looked at together, so that checks need little memory


class Split(NamedTuple):
    """Examples of one purpose: ``inputs`` (N, ...) and the class ``targets`` (N,), int64."""

    inputs: Tensor
    targets: Tensor


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
        for label in _SPLITS:
            _check_split(f"{label} of {self.name!r}", getattr(self, label), self.num_classes)
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
        _check_split(f"train of {name!r}", train, num_classes)
        return cls(name, train, validation, test, num_classes, *_mean_std(train.inputs))

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
        whole = Split(x, y.long())
        _check_split(f"{name!r}", whole, num_classes)
        sizes = _split_sizes(len(y), fractions)
        order = torch.split(_stratified_order(whole.targets, seed), sizes)
        train, validation, test = (Split(x[part], whole.targets[part]) for part in order)
        return cls.from_splits(name, train, validation, test, num_classes)


def save_task(task: Task, path: Path) -> None:
    """Writes a task as one safetensors file; readers see the old file or the new, whole.

    Args:
        task: The task.
        path: File to write; its folder must exist.

    Raises:
        OSError: If the file cannot be written.
    """
    tensors = {"mean": task.mean, "std": task.std}
    for label in _SPLITS:
        split: Split = getattr(task, label)
        tensors |= {f"{label}.inputs": split.inputs, f"{label}.targets": split.targets}
    # clone: the format refuses views and tensors that share memory
    tensors = {k: t.cpu().clone(memory_format=torch.contiguous_format) for k, t in tensors.items()}
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        metadata = {"name": task.name, "num_classes": str(task.num_classes)}
        save_file(tensors, temporary, metadata=metadata)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_task(path: Path) -> Task:
    """Reads a task written by ``save_task``.

    The tensors are mapped from the file: processes that load the same file share one copy.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged or holds something else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            train, validation, test = (
                Split(file.get_tensor(f"{label}.inputs"), file.get_tensor(f"{label}.targets"))
                for label in _SPLITS
            )
            mean, std = file.get_tensor("mean"), file.get_tensor("std")
        name, num_classes = metadata["name"], int(metadata["num_classes"])
        return Task(name, train, validation, test, num_classes, mean, std)
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(
            f"{path}: expected a task written by save_task, got a damaged or different file "
            f"({error}); write it again"
        ) from error


def _check_split(where: str, split: Split, num_classes: int) -> None:
    """Raises ValueError unless the split can be learned from."""
    inputs, targets = split
    if inputs.dtype not in (torch.uint8, torch.float32) or not 2 <= inputs.ndim <= 4:
        raise ValueError(
            f"{where}: expected uint8 or float32 inputs (N, F), (N, C, L) or (N, C, H, W), "
            f"got {inputs.dtype} {tuple(inputs.shape)}"
        )
    if targets.dtype != torch.int64 or targets.shape != inputs.shape[:1]:
        raise ValueError(
            f"{where}: expected one int64 target for each of {len(inputs)} inputs, "
            f"got {targets.dtype} {tuple(targets.shape)}"
        )
    if not inputs.numel():
        raise ValueError(f"{where}: expected at least one example, got {tuple(inputs.shape)}")
    low, high = (int(t) for t in targets.aminmax())
    if low < 0 or high >= num_classes:
        raise ValueError(
            f"{where}: expected targets in 0..{num_classes - 1}, got {low}..{high}; number the classes from 0"
        )
    if inputs.dtype == torch.float32 and not all(c.isfinite().all() for c in torch.split(inputs, _CHUNK)):
        raise ValueError(f"{where}: expected finite inputs, got NaN or infinity; clean them first")


def _mean_std(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per channel (C,), in float32; std is 1 where it would be 0."""
    count = inputs.numel() // inputs.shape[1]
    dims = [d for d in range(inputs.ndim) if d != 1]
    mean = torch.zeros(inputs.shape[1], dtype=torch.float64)
    for chunk in torch.split(inputs.cpu(), _CHUNK):
        mean += chunk.double().sum(dims) / count
    variance = torch.zeros_like(mean)
    centre = mean.view((-1,) + (1,) * (inputs.ndim - 2))
    for chunk in torch.split(inputs.cpu(), _CHUNK):
        variance += (chunk.double() - centre).square_().sum(dims) / count
    # a constant channel (the corner pixels of a digit) carries nothing: leave its scale alone
    std = variance.sqrt()
    std[std <= 1e-7 * mean.abs()] = 1.0
    return mean.float(), std.float()


def _stratified_order(targets: Tensor, seed: int) -> Tensor:
    """An order of the examples (N,) in which every class is spread evenly from start to end.

    The k-th of a class's n examples, in random order, stands at (k + u) / n with one random u
    per class; wherever the line is cut, each part holds every class in proportion.
    """
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(targets), generator=generator)
    position = torch.empty(len(targets), dtype=torch.float64)
    for value in range(int(targets.max()) + 1):
        members = shuffled[targets[shuffled] == value]
        offset = torch.rand(1, generator=generator, dtype=torch.float64)
        position[members] = (torch.arange(len(members)) + offset) / len(members)
    return shuffled[position[shuffled].argsort(stable=True)]


def _split_sizes(count: int, fractions: tuple[float, float, float]) -> list[int]:
    """Numbers of train, validation and test examples."""
    if not all(0 < share < 1 for share in fractions) or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"fractions: expected three positive shares of sum 1, got {fractions}")
    validation, test = (round(count * share) for share in fractions[1:])
    if min(count - validation - test, validation, test) < 1:
        raise ValueError(f"expected examples enough for fractions {fractions}, got {count}")
    return [count - validation - test, validation, test]


def _as_tensor(data: ArrayLike | Tensor) -> Tensor:
    """A tensor on the CPU; arrays are copied, for they may be read-only."""
    return data.detach().cpu() if isinstance(data, Tensor) else torch.tensor(np.asarray(data))
