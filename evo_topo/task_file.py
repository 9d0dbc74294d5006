"""A task as one file, which every process that loads it shares."""

import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from evo_topo.splits import SPLITS, Split
from evo_topo.task import Task


def save_task(task: Task, path: Path) -> None:
    """Writes a task as one safetensors file; readers see the old file or the new, whole.

    Args:
        task: The task.
        path: File to write; its folder must exist.

    Raises:
        OSError: If the file cannot be written.
    """
    tensors = {"mean": task.mean, "std": task.std}
    for label in SPLITS:
        split: Split = getattr(task, label)
        tensors |= {f"{label}.inputs": split.inputs, f"{label}.targets": split.targets}
    # clone: the format refuses views and tensors that share memory
    tensors = {k: t.cpu().clone(memory_format=torch.contiguous_format) for k, t in tensors.items()}
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        metadata = {"name": task.name, "num_classes": str(task.num_classes)}
        save_file(tensors, temporary, metadata=metadata)
        os.replace(temporary, path)
    except SafetensorError as error:  # its word for a full disk
        raise OSError(f"{path} cannot be written: {error}") from None
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
                for label in SPLITS
            )
            mean, std = file.get_tensor("mean"), file.get_tensor("std")
        name, num_classes = metadata["name"], int(metadata["num_classes"])
        return Task(name, train, validation, test, num_classes, mean, std)
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(
            f"{path}: expected a task written by save_task, got a damaged or different file "
            f"({error}); write it again"
        ) from error
