"""Developing children in worker processes: inherit, train, measure, price; through joblib.

A worker writes weights and outcome to disk before it returns, so that nothing finished is lost when a
worker dies: the driver then reconciles from disk and reruns what is missing one by one.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky import get_reusable_executor

from populations.config import ConfigError
from populations.development import Order, develop
from populations.individual import Outcome

if sys.platform != "win32":
    import fcntl

OrderT = TypeVar("OrderT")
ResultT = TypeVar("ResultT")

ATTEMPTS = 3
"""Times a child may take its worker process down before it is recorded as crashed."""
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


def run_tasks(
    task: Callable[[OrderT, str], ResultT],
    orders: Sequence[OrderT],
    slots: Slots,
) -> Generator[tuple[OrderT, ResultT], None, None]:
    """Runs ``task(order, device)`` for every order in worker processes; yields results as they come.

    Args:
        task: An importable function; must return ordinary failures as values.
        orders: What to do, plain records.
        slots: Devices and threads.

    Yields:
        Pairs of order and result.

    Raises:
        BrokenProcessPool: When a worker process died (`joblib` raises ``TerminatedWorkerError``).
    """
    # One slot also runs outside the driver: joblib would take n_jobs=1 as "in this process".
    with parallel_config(
        backend="loky",
        n_jobs=max(2, len(slots.devices)),
        inner_max_num_threads=slots.threads,
        initializer=_follow_driver,
        initargs=(os.getpid(),),
    ):
        parallel = Parallel(batch_size=1, pre_dispatch=len(slots.devices), return_as="generator_unordered")
        results = parallel(delayed(_on_slot)(task, order, slots) for order in orders)
        try:
            for result in results:  # noqa: UP028 - `yield from` would close it outside the block below
                yield result
        finally:
            with warnings.catch_warnings():  # joblib warns that it cancels what nobody waits for
                warnings.simplefilter("ignore", UserWarning)
                results.close()


def develop_all(
    orders: Sequence[Order], slots: Slots, task: Callable[[Order, str], Outcome] = develop
) -> Generator[tuple[Order, Outcome], None, None]:
    """Develops children in parallel; yields each with its outcome, in the order in which they finish.

    Every order gets exactly one outcome, also when worker processes die: those that were in flight are
    developed again, one at a time, and who takes its process down each time is recorded as crashed.

    Args:
        orders: The children.
        slots: Devices and threads.
        task: How a worker develops one.
    """
    pending = {order.id: order for order in orders}
    with suppress(BrokenProcessPool), closing(run_tasks(task, orders, slots)) as results:
        for order, outcome in results:
            del pending[order.id]
            yield order, outcome
    for order in list(pending.values()):
        yield order, _develop_alone(order, slots, task)


def stop_workers() -> None:
    """Ends all worker processes of this driver."""
    get_reusable_executor().shutdown(wait=True, kill_workers=True)


def _develop_alone(order: Order, slots: Slots, task: Callable[[Order, str], Outcome]) -> Outcome:
    """Develops a child that was in flight when the pool died, on its own, a few times at most."""
    for _ in range(ATTEMPTS - 1):  # the first attempt took the pool down, perhaps
        finished = order.read_outcome()
        if finished is not None:
            return finished
        try:
            [(_, outcome)] = run_tasks(task, [order], slots)
            return outcome
        except BrokenProcessPool:
            continue
    return order.read_outcome() or Outcome("crashed", f"its worker process died {ATTEMPTS} times")


def _on_slot(task: Callable[[OrderT, str], ResultT], order: OrderT, slots: Slots) -> tuple[OrderT, ResultT]:
    """In the worker: waits for a device of its own, sets the threads, runs the task."""
    import torch

    torch.set_num_threads(slots.threads)
    with _free_device(slots) as device:
        return order, task(order, device)


@contextmanager
def _free_device(slots: Slots) -> Iterator[str]:
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


def _follow_driver(driver: int) -> None:
    """In a new worker: die with the driver, and leave Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.getppid() != driver:  # it died before the call above
            os._exit(1)


def resolve_devices(devices: str, workers: int | None, threads: int) -> tuple[str, ...]:
    """The device of each slot.

    Args:
        devices: ``auto`` (every CUDA device, or the CPU), ``cpu``, or a comma-separated list.
        workers: Number of slots; None for one per listed GPU, or one per `threads` CPU cores.
        threads: CPU threads per child.

    Raises:
        ConfigError: When a device does not exist here.
    """
    import torch

    count = torch.cuda.device_count()
    if devices == "auto":
        listed = [f"cuda:{i}" for i in range(count)] or ["cpu"]
    else:
        listed = [name.strip() for name in devices.split(",")]
    known = {"cpu", *(f"cuda:{i}" for i in range(count))}
    for name in listed:
        if name not in known:
            raise ConfigError(
                f"devices: there is no device {name!r} here; there are {', '.join(sorted(known))}"
            )
    if workers is None:
        workers = max(1, len(os.sched_getaffinity(0)) // threads) if listed == ["cpu"] else len(listed)
    return tuple(listed[i % len(listed)] for i in range(workers))
