"""The benchmark of the driver's cost runs a real evolution, and memory stays flat."""

import random
from pathlib import Path

import msgspec
import pytest

from analysis.benchmarks.driver import driver_info
from analysis.benchmarks.scaling import ScalingInfo, command
from analysis.benchmarks.stub import stub_prices
from analysis.benchmarks.synthetic import network
from evo_topo.cost import count_macs
from evo_topo.mutation import propose


def test_made_up_prices_lead_to_edits() -> None:
    genome = network("2 M")
    prices = stub_prices(genome, random.Random(0))
    assert prices.are_finite
    assert len(prices.edits) > 8
    assert all(0 <= last < count_macs(genome) for order in prices.joint for last in order.macs)
    children = [propose(genome, prices, random.Random(i)).genome for i in range(9)]
    assert all(child.fingerprint != genome.fingerprint for child in children)


def test_the_command_leaves_its_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command(["--populations", "4", "--children", "16", "--no-workers", "--out", str(tmp_path)])
    info = msgspec.json.decode((tmp_path / "scaling.json").read_bytes(), type=ScalingInfo)
    (driver,) = info.driver
    assert (driver.population, driver.children, len(driver.generations)) == (4, 16, 4)
    assert driver.cpu > 0
    assert 0 < driver.storing < driver.wall
    assert len(driver.memory) == 5
    assert "the driver's own cost per child" in capsys.readouterr().out
    assert (tmp_path / "figures" / "scaling.png").is_file()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_children() -> None:
    # A genome with its prices has some hundred thousand. About half are the last networks that mutations led
    # to: so many are kept, whatever the length of the run.
    assert driver_info(6, 240).bytes < 4000


def test_too_small_a_population_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        command(["--populations", "1", "--out", str(tmp_path)])
    assert error.value.code == 2
    assert "at least 4" in capsys.readouterr().err
