"""The machine that a benchmark runs on, and the memory that its process takes."""

from __future__ import annotations

import os
import platform
import resource
import sys
from pathlib import Path

import torch
from msgspec import Struct


class Machine(Struct, frozen=True):
    """What the seconds were measured on."""

    cpu: str
    threads: int
    torch: str


def this_machine() -> Machine:
    """What the seconds are measured on."""
    return Machine(_cpu_model(), torch.get_num_threads(), str(torch.__version__))


def peak_memory() -> int:
    """Most memory that this process has held so far, in bytes.

    On Linux ``ru_maxrss`` begins with the peak of the process that started this one, even through spawn, so
    the kernel's figure for this process alone is read instead.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _cpu_model() -> str:
    """Name of the processor, as far as the system tells, and how many may be used."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass  # other systems than Linux, or processors that do not say
    return f"{name} x {os.cpu_count()}"
