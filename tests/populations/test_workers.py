import os
import subprocess
import sys
from concurrent.futures import wait

import pytest

from evo_topo.task_file import save_task
from populations.individual import Outcome
from populations.orders import DATA, Order
from populations.slots import Slots
from populations.workers import Crew, run_tasks, stop_workers
from tests import faults
from tests.small import small_config, small_founder, small_task


@pytest.fixture(scope="module", autouse=True)
def _stop():
    yield
    stop_workers()


def orders(folder, count: int) -> list[Order]:
    save_task(small_task(), folder / DATA)
    recipe = small_config().recipe
    return [
        Order(i, str(folder), small_founder().to_json(), None, "", None, i, recipe, 50) for i in range(count)
    ]


def develop_all(todo: list[Order], slots: Slots, task) -> dict[int, Outcome]:
    crew = Crew(slots, task)
    outcomes: dict[int, Outcome] = {}
    pending = list(todo)
    while pending or crew.is_busy:
        while pending and crew.has_room:
            crew.submit(pending.pop(0))
        for order, outcome in crew.wait():
            assert order.id not in outcomes
            outcomes[order.id] = outcome
    return outcomes


@pytest.mark.parametrize("workers", [1, 2])
def test_tasks_run_outside_the_driver_with_fixed_threads(tmp_path, workers):
    slots = Slots(("cpu",) * workers, 1, tmp_path)
    results = [result for _, result in run_tasks(faults.where, list(range(6)), slots)]
    assert len(results) == 6
    assert {threads for _, threads, _ in results} == {1}
    assert os.getpid() not in {pid for pid, _, _ in results}


def test_a_worker_that_grows_is_kept(tmp_path):
    slots = Slots(("cpu",), 1, tmp_path)
    processes = [process for _, process in run_tasks(faults.grows, list(range(5)), slots)]
    stop_workers()  # they hold the memory
    assert len(processes) == 5
    assert len(set(processes)) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="a call of Linux")
def test_a_process_can_end_with_its_parent():
    child = (
        "import os, time; from populations.workers import die_with; "
        "die_with(os.getppid()); print('ready', flush=True); time.sleep(300)"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.kill()
        process.communicate(timeout=30)  # the pipe is closed once neither lives


def test_different_devices_are_held_one_at_a_time(tmp_path):
    slots = Slots(("cpu", "cpu:0"), 1, tmp_path)
    devices = [device for _, device in run_tasks(faults.alone, [str(tmp_path)] * 8, slots)]
    assert len(devices) == 8
    assert set(devices) == {"cpu", "cpu:0"}


def test_a_child_that_kills_its_worker_once_is_developed_again(tmp_path):
    slots = Slots(("cpu", "cpu"), 1, tmp_path)
    outcomes = develop_all(orders(tmp_path, 4), slots, faults.dies_once)
    assert sorted(outcomes) == [0, 1, 2, 3]
    assert {outcome.status for outcome in outcomes.values()} == {"ok"}


@pytest.mark.slow
def test_a_child_that_always_kills_its_worker_fails_alone(tmp_path):
    slots = Slots(("cpu", "cpu"), 1, tmp_path)
    outcomes = develop_all(orders(tmp_path, 4), slots, faults.dies_always)
    assert {i: outcome.status for i, outcome in outcomes.items()} == {0: "ok", 1: "crashed", 2: "ok", 3: "ok"}
    assert "3 times" in outcomes[1].reason


def test_what_is_finished_is_told_before_an_error_ends_all(tmp_path):
    crew = Crew(Slots(("cpu", "cpu"), 1, tmp_path), faults.fails_at_zero)
    for order in orders(tmp_path, 2):
        crew.submit(order)
    wait(crew._running)  # both are done
    told = crew.wait()
    assert next(told)[0].id == 1
    with pytest.raises(OSError, match="no space"):
        next(told)


def test_workers_can_be_stopped_while_an_order_is_handed_over(tmp_path):
    crew = Crew(Slots(("cpu",), 1, tmp_path), faults.fails_at_zero)
    _, first, second = orders(tmp_path, 3)
    crew.submit(first)
    assert [order for order, _ in crew.wait()] == [first]
    crew.submit(second)
    stop_workers()  # an error in loky's thread would be a warning here
