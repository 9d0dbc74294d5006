"""Developing children in worker processes: inherit, train, measure, price; in joblib's executor (loky).

A worker writes weights and outcome to disk before it returns, so that nothing finished is lost when a
worker dies: the driver then reconciles from disk and reruns what is missing one by one.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from typing import TypeVar

from joblib.externals.loky import get_reusable_executor, process_executor

from populations.development import develop
from populations.individual import Outcome
from populations.orders import Order
from populations.slots import Slots, free_device

OrderT = TypeVar("OrderT")
ResultT = TypeVar("ResultT")

ATTEMPTS = 3
"""Times a child may take its worker process down before it is recorded as crashed."""
IDLE_TIMEOUT = 300
"""Seconds after which an idle worker process ends."""
MOST_GROWTH = 2**32
"""Bytes by which a worker may grow before it is started anew."""
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
KEPT_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**28)}
"""For glibc: memory that a step gives back stays for the next one. Otherwise the larger values of a training
lie in new memory at every step, which costs up to a tenth of the time, in large batches."""


class Crew:
    """Worker processes that take one order after another; nothing waits for the slowest.

    Every order gets exactly one outcome, also when worker processes die: those that were in flight are
    developed again, one at a time, and who takes its process down each time is recorded as crashed.

    Args:
        slots: Devices and threads.
        task: How a worker develops one; must return a child's own failures as values. What it raises, as of a
            disk that fails, ends the run.
    """

    def __init__(self, slots: Slots, task: Callable[[Order, str], Outcome] = develop) -> None:
        self.slots = slots
        self.task = task
        self._running: dict[Future[Outcome], Order] = {}

    @property
    def is_busy(self) -> bool:
        """Whether any order is in flight."""
        return bool(self._running)

    @property
    def has_free_slot(self) -> bool:
        """Whether an order would be taken up at once."""
        return len(self._running) < len(self.slots.devices)

    @property
    def has_room(self) -> bool:
        """Whether an order would be taken up soon: one may wait, so that no worker ever does."""
        return len(self._running) <= len(self.slots.devices)

    def submit(self, order: Order) -> None:
        """Hands an order to the next free worker."""
        with suppress(BrokenProcessPool):  # `wait` finds the pool broken as well, and mends it
            self._running[_submit(self.task, order, self.slots)] = order
            return
        self._running[_broken()] = order

    def wait(self) -> Iterator[tuple[Order, Outcome]]:
        """Waits for at least one order; yields each finished one with its outcome."""
        done, _ = wait(self._running, return_when=FIRST_COMPLETED)
        if any(isinstance(future.exception(), BrokenProcessPool) for future in done):
            yield from self._recover()
            return
        for future in sorted(done, key=_has_failed):  # what is finished is stored before an error ends all
            yield self._running.pop(future), future.result()

    def _recover(self) -> Iterator[tuple[Order, Outcome]]:
        """After the pool died: what had finished, then the others one at a time."""
        wait(self._running)  # a broken pool breaks all of its futures at once
        running, self._running = self._running, {}
        suspects, failed = [], []
        for future, order in running.items():
            if future.exception() is None:
                yield order, future.result()
            elif isinstance(future.exception(), BrokenProcessPool):
                suspects.append(order)
            else:
                failed.append(future)
        for future in failed:
            future.result()  # raises what it raised
        for order in suspects:
            yield order, self._develop_alone(order)

    def _develop_alone(self, order: Order) -> Outcome:
        """Develops a child that was in flight when the pool died, on its own, a few times at most."""
        for _ in range(ATTEMPTS - 1):  # the first attempt took the pool down, perhaps
            if finished := order.read_outcome():
                return finished
            with suppress(BrokenProcessPool):
                return _submit(self.task, order, self.slots).result()
        return order.read_outcome() or Outcome("crashed", f"its worker process died {ATTEMPTS} times")


def _has_failed(future: Future[Outcome]) -> bool:
    return future.exception() is not None


def _broken() -> Future[Outcome]:
    """A future that failed because the pool had died before it was submitted."""
    future: Future[Outcome] = Future()
    future.set_exception(BrokenProcessPool("the pool died"))
    return future


def run_tasks(
    task: Callable[[OrderT, str], ResultT], orders: Sequence[OrderT], slots: Slots
) -> Iterator[tuple[OrderT, ResultT]]:
    """Runs ``task(order, device)`` for every order in worker processes; yields results as they come.

    Args:
        task: An importable function.
        orders: What to do, plain records.
        slots: Devices and threads.

    Yields:
        Pairs of order and result.

    Raises:
        BrokenProcessPool: When a worker process died.
    """
    futures = {_submit(task, order, slots): order for order in orders}
    for future in as_completed(futures):
        yield futures[future], future.result()


def _submit(task: Callable[[OrderT, str], ResultT], order: OrderT, slots: Slots) -> Future[ResultT]:
    executor = get_reusable_executor(
        max_workers=len(slots.devices),
        timeout=IDLE_TIMEOUT,
        initializer=_begin,
        initargs=(os.getpid(),),
        env=dict.fromkeys(THREAD_VARIABLES, str(slots.threads)) | KEPT_MEMORY,
    )
    future: Future[ResultT] = executor.submit(_on_slot, task, order, slots)
    return future


def stop_workers() -> None:
    """Ends all worker processes of this driver."""
    executor = get_reusable_executor(reuse=True)
    # loky's thread dies of a KeyError if it is told to kill before it has taken up what was submitted last
    deadline = time.monotonic() + 1
    while not executor._work_ids.empty() and time.monotonic() < deadline:
        time.sleep(0.001)
    executor.shutdown(wait=True, kill_workers=True)


def die_with(parent: int) -> None:
    """Ends this process as soon as its parent ends, however that ends; on Linux alone.

    Args:
        parent: Process id of the parent.
    """
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the call above
            os._exit(1)


def _on_slot(task: Callable[[OrderT, str], ResultT], order: OrderT, slots: Slots) -> ResultT:
    """In the worker: waits for a device of its own, sets the threads, runs the task."""
    import torch

    torch.set_num_threads(slots.threads)
    with free_device(slots) as device:
        return task(order, device)


def _begin(driver: int) -> None:
    """In a new worker: die with the driver, leave Ctrl-C to it, and do not look through all of torch."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with(driver)
    # Where psutil is installed, 300 MB are a leak to loky: CUDA, or one large network, has more, and a new
    # worker takes longer to start than most children do.
    process_executor._MAX_MEMORY_LEAK_SIZE = MOST_GROWTH
    # joblib collects garbage between tasks, and Python during them; going through all of torch takes 0.2 s
    gc.collect()
    gc.freeze()
    atexit.register(gc.unfreeze)  # else extensions take what is frozen for leaks, and say so at the end
