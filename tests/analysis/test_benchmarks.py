"""The comparison of criteria runs on a small network, and says what it found."""

from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
import torch
from safetensors.torch import save_file

from analysis.benchmarks.criteria import CRITERIA, command, criteria_info
from analysis.benchmarks.criteria_report import CriteriaInfo, criteria_table, draw_criteria
from analysis.benchmarks.subject import Subject, trained_network
from evo_topo.datasets import load_dataset
from evo_topo.phenotype import build
from evo_topo.recipe import Recipe
from evo_topo.units import unit_table
from populations.founders import conv_net
from populations.presets import PRESETS


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command leaves, for the digits and a few thousand training examples."""
    folder = tmp_path_factory.mktemp("benchmark")
    settings = {"training-examples": 2500, "examples": 100, "weights": folder / "w.safetensors"}
    settings |= {"preset": "digits", "out": folder / "new" / "out"}
    command([text for name, value in settings.items() for text in (f"--{name}", str(value))])
    return folder


@pytest.mark.slow
def test_the_criteria_differ_as_they_should(out: Path) -> None:
    info = msgspec.json.decode((out / "new" / "out" / "criteria.json").read_bytes(), type=CriteriaInfo)
    found = {item.name: item for item in info.criteria}
    assert found.keys() == CRITERIA.keys()
    units = sum(group.width for group in unit_table(PRESETS["digits"].founder()).groups.values())
    assert (info.units, info.examples, info.machine.threads) == (units, 100, torch.get_num_threads())
    assert [item.spearman for item in info.criteria] == sorted(
        [item.spearman for item in info.criteria], reverse=True
    )
    assert found["OBD, exact"].spearman > 0.9
    assert found["OBD, sampled"].spearman > found["weight magnitude"].spearman
    assert found["OBD, sampled"].cost < found["OBD, exact"].cost < 1
    for item in info.criteria:
        assert item.cost == pytest.approx(item.seconds / info.brute_force_seconds)


@pytest.mark.slow
def test_the_figure_names_every_criterion(out: Path) -> None:
    text = "".join(ElementTree.parse(out / "new" / "out" / "figures" / "criteria.svg").getroot().itertext())
    assert [name for name in CRITERIA if name not in text] == []
    assert " units, 100 training examples" in text


@pytest.mark.slow
def test_given_weights_are_read_instead_of_training(out: Path) -> None:
    task, weights = load_dataset("digits"), out / "w.safetensors"
    before = weights.read_bytes()
    genome, recipe = PRESETS["digits"].founder(), Recipe(examples=1, learning_rate=0.05)
    first, second = (trained_network(genome, task, recipe, seed, weights) for seed in (0, 1))
    assert weights.read_bytes() == before
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])


def test_criteria_that_cannot_tell_units_apart_have_no_correlation() -> None:
    genome = conv_net((1, 8, 8), 10, (3, 3), (2, 1))
    task = load_dataset("digits")
    inputs, targets = (tensor[:20] for tensor in task.train)
    info = criteria_info(Subject(build(genome), genome, task.normalise(inputs), targets), "digits", 0, 0.1)
    assert (info.criteria[-1].name, info.criteria[-1].spearman) == ("BatchNorm scale", None)  # all are 1
    lines = criteria_table(info).splitlines()
    assert len(lines) == 3 + 1 + len(CRITERIA) + 1
    assert next(line for line in lines if line.startswith("BatchNorm")).split()[2] == "n/a"
    draw_criteria(info).draw_without_rendering()


@pytest.mark.parametrize("content", [b"no weights", None])
def test_weights_of_another_network_are_refused(
    content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "other.safetensors"
    if content is None:
        save_file({"conv1.weight": torch.zeros(2)}, weights)
    else:
        weights.write_bytes(content)
    with pytest.raises(SystemExit) as error:
        command(["--preset", "digits", "--weights", str(weights), "--out", str(tmp_path / "out")])
    assert error.value.code == 2
    assert "expected weights of the network of this benchmark" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
