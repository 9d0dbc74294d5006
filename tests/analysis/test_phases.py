"""The benchmark of where the time goes accounts for all of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from analysis.benchmarks.machine import this_machine
from analysis.benchmarks.phases import REST, PhasesInfo, command, draw_phases, phases_info, phases_table
from analysis.benchmarks.synthetic import pictures
from populations.presets import PRESETS


def test_the_table_and_the_figure_hold_every_share() -> None:
    shares = {"training": 0.7, "evaluation": 0.05, "waiting, and the driver": 0.25}
    info = PhasesInfo(this_machine(), "digits", ("cpu", "cpu"), 12, 30.0, shares, 0.25)
    text = phases_table(info)
    assert all(part in text for part in ("70.0%  training", "12 children", "25.0%  outside"))
    figure = draw_phases(info)
    figure.draw_without_rendering()
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == list(shares)


@pytest.mark.slow
@pytest.mark.parametrize("polish", [0, 4096])
def test_shares_of_an_evolution_sum_to_one(polish: int) -> None:
    preset = PRESETS["fashion-mnist"].config
    recipe = dataclasses.replace(preset.recipe, examples=128, calibration_examples=64)
    config = dataclasses.replace(
        preset,
        recipe=recipe,
        founder_examples=128,
        generations=1,
        parents=2,
        offspring=2,
        polished=1,
        polish_examples=polish,
        compare=False,
        probe_examples=32,
        accuracy_floor=0.0,
        example_exponent=0.0,
        workers=1,
    )
    info = phases_info(pictures(300, 100, 10), config)
    assert sum(info.shares.values()) == pytest.approx(1)
    assert info.children == 2 + bool(polish)
    assert {"training", "evaluation", "pricing", "inheritance"} <= info.shares.keys()
    assert min(info.shares.values()) > -0.05
    if polish:  # thirty times as many examples as a child
        assert info.shares["training"] > 5 * info.shares[REST]


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--minutes", "-1"], "minutes: expected a positive number"), (["--workers", "0"], "workers")],
)
def test_bad_input_ends_in_one_message(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        command(["digits", *options, "--out", str(tmp_path / "out")])
    assert error.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
