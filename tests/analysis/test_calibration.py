"""Rank correlation equals a slow reference; trials are paired with the right parent."""

import json
from math import nan
from pathlib import Path
from random import Random
from xml.etree import ElementTree

import msgspec
import numpy as np
import pytest

from analysis.calibration import average_ranks, calibration_info, draw_calibration, main, spearman
from analysis.common import open_run, run_command, save_figure
from populations.individual import Individual
from populations.records import LineageError
from tests.runs import make_run


def slow_ranks(values: list[float]) -> list[float]:
    """The mean place of all equal values in the sorted list."""
    ordered = sorted(values)
    places = [[i for i, other in enumerate(ordered) if other == value] for value in values]
    return [sum(found) / len(found) for found in places]


@pytest.mark.parametrize("seed", range(20))
def test_ranks_and_correlation_equal_the_reference(seed: int) -> None:
    rng = Random(seed)
    x = [rng.randrange(4) / 2 if seed % 2 else rng.random() for _ in range(3 + seed)]
    y = [value + rng.gauss(0, 0.5) for value in x]
    assert average_ranks(np.array(x)).tolist() == slow_ranks(x)
    if len(set(x)) > 1:
        assert spearman(x, y) == pytest.approx(np.corrcoef(slow_ranks(x), slow_ranks(y))[0, 1])


def test_correlation_knows_its_ends() -> None:
    assert spearman([1, 2, 3], [10, 20, 1000]) == pytest.approx(1)
    assert spearman([1, 2, 3], [3, 2, -5]) == pytest.approx(-1)
    assert spearman([1, None, 2, nan, 3], [1, 9, 2, 9, 3]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("x", "y"),
    [([], []), ([1, 2], [1, 2]), ([1, 2, 3], [5, 5, 5]), ([0, 0, 0], [1, 2, 3]), ([1, 2, nan], [1, 2, 3])],
)
def test_correlation_of_too_little_is_none(x: list[float], y: list[float]) -> None:
    assert spearman(x, y) is None


def test_trials_are_measured_against_the_parent(tmp_path: Path) -> None:
    everyone = make_run(tmp_path, generations=10)
    info = calibration_info(open_run(tmp_path))
    predicted = [i for i in everyone if i.edit is not None and i.predicted_loss_change is not None]
    assert [trial.id for trial in info.trials] == [i.id for i in predicted]
    for trial in info.trials:
        child = everyone[trial.id]
        parent: Individual = everyone[child.parent]
        assert trial.predicted == child.predicted_loss_change
        if not child.is_failed:
            assert trial.inherited == child.outcome.inherited_loss - parent.outcome.probe_loss
        else:
            assert trial.inherited is None
        if child.is_alive:
            assert trial.trained == child.outcome.loss - parent.outcome.loss
        else:
            assert trial.trained is None
    for kind in info.kinds:
        alive = [t for t in info.trials if t.kind == kind.kind and t.trained is not None]
        assert kind.trained.count == len(alive) <= kind.inherited.count
        hoped = [t.predicted + t.promised for t in alive]
        assert kind.trained.spearman == spearman(hoped, [t.trained for t in alive])
    assert "prune units" in {kind.kind for kind in info.kinds}
    assert "stopped" in {child.outcome.status for child in predicted}


def test_figure_says_what_it_shows(tmp_path: Path) -> None:
    make_run(tmp_path, generations=6)
    info = calibration_info(open_run(tmp_path))
    save_figure(draw_calibration(info), tmp_path, "calibration")
    svg = (tmp_path / "figures" / "calibration.svg").read_text()
    ElementTree.fromstring(svg)
    for kind in info.kinds:
        assert f">{kind.kind}<" in svg
    assert "Spearman n/a" in svg  # splits promise 0, all of them
    assert "measured after training" in svg


def test_one_trial_still_draws(tmp_path: Path) -> None:
    make_run(tmp_path, generations=2)
    info = calibration_info(open_run(tmp_path))
    trial = msgspec.structs.replace(info.trials[0], predicted=0.0, inherited=0.0, trained=None)
    kinds = [kind for kind in info.kinds if kind.kind == trial.kind]
    figure = draw_calibration(msgspec.structs.replace(info, trials=[trial], kinds=kinds))
    figure.draw_without_rendering()
    assert any(axes.collections for axes in figure.axes)


def test_a_run_without_predictions_is_named(tmp_path: Path) -> None:
    make_run(tmp_path, generations=0)
    with pytest.raises(LineageError, match="no edit with both"):
        calibration_info(open_run(tmp_path))


def test_json_has_null_for_no_correlation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path)
    run_command(main, "calibration", [str(tmp_path), "--json"])
    kinds = {kind["kind"]: kind for kind in json.loads(capsys.readouterr().out)["kinds"]}
    assert any(kind["inherited"]["spearman"] is None for kind in kinds.values())
