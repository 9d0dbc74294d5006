"""What a benchmark says of its machine and its process."""

import multiprocessing

from analysis.benchmarks.machine import peak_memory, this_machine


def test_the_peak_rises_with_what_is_held():
    before = peak_memory()
    held = b"x" * (before + 2**26)
    assert peak_memory() >= before + len(held) // 2
    del held
    assert peak_memory() > before


def test_the_peak_is_not_that_of_the_process_that_started_this_one():
    held = b"x" * 2**30
    assert peak_memory() > len(held)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(peak_memory) < len(held)


def test_the_machine_has_a_name():
    assert " x " in this_machine().cpu
