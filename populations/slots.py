"""Slots: where children are developed, and how many at once."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from populations.config import ConfigError

if sys.platform != "win32":
    import fcntl

CHILDREN_PER_GPU = 4
"""Children that share a GPU where nobody says how many; a small network leaves most of one idle."""
GPU_MEMORY_PER_CHILD = 4 * 2**30
"""Bytes that a child may come to need on a GPU: CUDA itself, data, and activations of a large evaluation."""
SLOT_DEADLINE = 300.0
"""Seconds that a task waits for a free device before it gives up."""


class Slots(NamedTuple):
    """Where children are developed.

    Attributes:
        devices: One entry per child at a time, such as ``("cuda:0", "cuda:0", "cuda:1")``.
        threads: CPU threads per child.
        folder: Folder for the lock files that keep two children off one slot.
    """

    devices: tuple[str, ...]
    threads: int
    folder: Path


@contextmanager
def free_device(slots: Slots) -> Iterator[str]:
    """Holds a lock on a free slot; the kernel releases it even when the process is killed."""
    if len(set(slots.devices)) == 1:
        yield slots.devices[0]
        return
    slots.folder.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + SLOT_DEADLINE
    while time.monotonic() < deadline:
        for number, device in enumerate(slots.devices):
            with open(slots.folder / f"slot-{number}.lock", "w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    continue
                yield device
                return
        time.sleep(0.05)
    raise TimeoutError(f"no device of {slots.devices} became free within {SLOT_DEADLINE:.0f} s")


def resolve_devices(devices: str, workers: int | None, threads: int) -> tuple[str, ...]:
    """The device of each slot.

    Args:
        devices: ``auto`` (every CUDA device, for as many children as it has room for, or the CPU), ``cpu``,
            or a comma-separated list.
        workers: Number of slots; None for one per listed GPU, or one per `threads` CPU cores.
        threads: CPU threads per child.

    Raises:
        ConfigError: When a device does not exist here.
    """
    import torch

    count, cores = torch.cuda.device_count(), len(os.sched_getaffinity(0)) // threads
    if devices == "auto":
        each = min(map(_children_with_memory, range(count)), default=0)
        each = max(1, min(CHILDREN_PER_GPU, cores // max(count, 1), each))
        listed = [f"cuda:{i}" for _ in range(each) for i in range(count)] or ["cpu"]
    else:
        listed = [name.strip() for name in devices.split(",")]
    known = {"cpu", *(f"cuda:{i}" for i in range(count))}
    for name in listed:
        if name not in known:
            raise ConfigError(
                f"devices: there is no device {name!r} here; there are {', '.join(sorted(known))}"
            )
    if workers is None:
        workers = max(1, cores) if listed == ["cpu"] else len(listed)
    return tuple(listed[i % len(listed)] for i in range(workers))


def _children_with_memory(gpu: int) -> int:
    """Children for which the memory of a GPU suffices."""
    import torch

    return int(torch.cuda.get_device_properties(gpu).total_memory // GPU_MEMORY_PER_CHILD)
