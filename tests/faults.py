"""Tasks that go wrong on purpose, for worker processes to run."""

import os
import signal
import time
from pathlib import Path

from populations.development import develop
from populations.individual import Outcome
from populations.orders import Order


def dies_always(order: Order, device: str) -> Outcome:
    if order.id == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return develop(order, device)


def dies_once(order: Order, device: str) -> Outcome:
    flag = Path(order.run_dir) / f"died-{order.id}"
    if order.id == 1 and not flag.exists():
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return develop(order, device)


def where(order: int, device: str) -> tuple[int, int, str]:
    import torch

    return os.getpid(), torch.get_num_threads(), device


_kept: list[bytes] = []


def grows(order: int, device: str) -> int:
    """Keeps some of the memory that it takes, as CUDA does; returns its process."""
    time.sleep(0.6)
    _kept.append(b"x" * 160_000_000)
    return os.getpid()


def dies_when_measuring(order: Order, device: str) -> float:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0.0


def alone(folder: str, device: str) -> str:
    """Notices where another task holds its device."""
    path = Path(folder) / f"held-{device.replace(':', '-')}"
    os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    time.sleep(0.2)
    path.unlink()
    return device


def fails_at_zero(order: Order, device: str) -> Outcome:
    if order.id == 0:
        raise OSError("no space left")
    return Outcome("ok")
