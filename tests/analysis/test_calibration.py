"""Trials are paired with the right parent."""

import json
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from analysis.calibration import calibration_info, draw_calibration, main
from analysis.common import open_run, run_command, save_figure
from analysis.ranks import spearman
from populations.individual import Individual
from populations.records import LineageError
from tests.runs import make_run


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
