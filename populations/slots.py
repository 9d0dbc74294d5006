"""Slots: where children are developed, and how many at once."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from populations.config import ConfigError

CHILDREN_PER_GPU = 4
"""Children that share a GPU where nobody says how many, and NVIDIA's Multi-Process Service does not run: only
one of them computes at a time. Four fill each other's pauses; they train as fast as one (on an H200)."""
CHILDREN_PER_SHARED_GPU = 8
"""The same where it runs: eight train 4.3 times as fast as one."""
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
        workers: Number of slots; None for one per device listed, or one per `threads` CPU cores.
        threads: CPU threads per child.

    Raises:
        ConfigError: When a device does not exist here.
    """
    import joblib
    import torch

    # those that this process may use: of a container or a batch system, not of the computer
    count, cores = torch.cuda.device_count(), joblib.cpu_count() // threads
    if devices == "auto":
        listed = [f"cuda:{i}" for i in range(count)] * _children_per_gpu(count, cores) or ["cpu"]
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


def _children_per_gpu(gpus: int, cores: int) -> int:
    """Children for which each of some GPUs has memory and computes fast, and each of which has a CPU core."""
    import torch

    if not gpus:
        return 0
    memory = min(torch.cuda.get_device_properties(i).total_memory for i in range(gpus))
    most = CHILDREN_PER_SHARED_GPU if is_service_running() else CHILDREN_PER_GPU
    return max(1, min(most, memory // GPU_MEMORY_PER_CHILD, cores // gpus))


def is_service_running() -> bool:
    """Whether NVIDIA's Multi-Process Service runs: then processes that share a GPU compute side by side."""
    folder = Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps"))
    try:
        os.kill(int((folder / "nvidia-cuda-mps-control.pid").read_text()), 0)
    except PermissionError:  # somebody else's, which is open to all
        return True
    except (OSError, ValueError):
        return False
    return True
