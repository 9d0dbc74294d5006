"""The family tree hangs together, no lines cross, and the line of descent adds up."""

import json
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from analysis.common import open_run, run_command
from analysis.descent import MOST_ROWS, descent_info, descent_rows, draw_descent
from analysis.layout import ancestors, place_family
from analysis.lineage import lineage_info, main
from populations.lineage import line_of_descent
from populations.records import LineageError
from tests.runs import make_run


def test_members_know_whether_their_line_lives(tmp_path: Path) -> None:
    everyone = make_run(tmp_path)
    run = open_run(tmp_path)
    info = lineage_info(run)
    living = {i.id for survivor in run.survivors for i in line_of_descent(everyone, survivor)}
    assert {member.id for member in info.members if member.founds} == living
    assert [member.id for member in info.members if member.survives] == run.survivors
    assert [member.accuracy for member in info.members] == [i.outcome.accuracy for i in everyone]
    assert info.last_generation == 4
    best = max(run.survivors, key=lambda i: everyone[i].outcome.accuracy)
    assert info.line[-1].id == best


def test_before_the_first_generation_ends_the_founder_is_told(tmp_path: Path) -> None:
    make_run(tmp_path)
    info = lineage_info(open_run(tmp_path)._replace(populations={}))
    assert [step.id for step in info.line] == [0]


def test_steps_tell_what_was_promised_and_measured(tmp_path: Path) -> None:
    everyone = make_run(tmp_path, generations=6)
    run = open_run(tmp_path)
    for last in everyone:
        steps = descent_info(run, last.id)
        line = line_of_descent(everyone, last.id)
        assert [(s.id, s.macs, s.accuracy) for s in steps] == [
            (i.id, i.macs, i.outcome.accuracy) for i in line
        ]
        assert (steps[0].mutation, steps[0].trained) == ("founder", None)
        for step, (parent, child) in zip(steps[1:], pairwise(line), strict=True):
            assert step.predicted == child.predicted_loss_change
            if child.is_alive:
                assert step.inherited == child.outcome.inherited_loss - parent.outcome.probe_loss
                assert step.trained == child.outcome.loss - parent.outcome.loss


def test_ancestors() -> None:
    parents = {0: None, 1: 0, 2: 1, 3: 0, 4: 2}
    assert ancestors(parents, [4, 3]) == {0, 1, 2, 3, 4}
    assert ancestors(parents, [2]) == {0, 1, 2}
    assert ancestors(parents, []) == set()


def test_every_subtree_has_a_band_of_its_own(tmp_path: Path) -> None:
    everyone = make_run(tmp_path, generations=8)
    survivors = open_run(tmp_path).survivors
    parents = {i.id: i.parent for i in everyone}
    places = place_family(parents, survivors, room=3.0)
    leaves = [i for i in parents if i not in set(parents.values()) and i not in survivors]
    assert places.total == len(leaves) + 3 * len(survivors)
    bands = {
        i: [places.heights[j] for j in parents if i in ancestors(parents, [j])]
        + [places.ends[j] for j in survivors if i in ancestors(parents, [j])]
        for i in parents
    }
    for parent in parents:
        below = sorted((min(bands[i]), max(bands[i])) for i in parents if parents[i] == parent)
        assert all(upper[1] < lower[0] for upper, lower in pairwise(below))
        assert min(bands[parent]) <= places.heights[parent] <= max(bands[parent])


def test_a_line_of_thousands_is_no_burden() -> None:
    parents = {0: None} | {i: i - 1 for i in range(1, 5000)}
    assert set(place_family(parents, [4999], 2.0).heights.values()) == {1.0}


def test_both_figures_say_what_they_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path)
    run_command(main, "lineage", [str(tmp_path), "--id", "7"])
    info = lineage_info(open_run(tmp_path), 7)
    printed = capsys.readouterr().out
    tree, line = (tmp_path / "figures" / f"{name}.svg" for name in ("lineage", "lineage-7"))
    for svg in (tree.read_text(), line.read_text()):
        ElementTree.fromstring(svg)
    for member in info.members:
        assert (f"#{member.id} " in tree.read_text()) == member.survives
    for step in info.line:
        assert step.mutation in printed
        assert f">{step.mutation}<" in line.read_text()
    assert f"wrote {line}" in printed


def test_a_long_line_shows_its_end(tmp_path: Path) -> None:
    make_run(tmp_path)
    step = descent_info(open_run(tmp_path), 0)[0]
    figure = draw_descent("long", [step] * (MOST_ROWS + 50))
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert f"{MOST_ROWS + 49} steps from the founder, the last {MOST_ROWS} shown" in texts
    assert len(descent_rows([step] * 150)) == 151


@pytest.mark.parametrize("status", ["diverged", "stopped"])
def test_who_ended_early_can_be_told(tmp_path: Path, status: str) -> None:
    ended = next(i for i in make_run(tmp_path, generations=12) if i.outcome.status == status)
    steps = descent_info(open_run(tmp_path), ended.id)
    assert (steps[-1].accuracy, steps[-1].trained) == (None, None)
    assert (steps[-1].inherited is None) == (status == "diverged")
    draw_descent(status, steps).draw_without_rendering()


@pytest.mark.parametrize("id_", ["999", "-1"])
def test_an_unknown_id_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], id_: str) -> None:
    make_run(tmp_path)
    with pytest.raises(LineageError, match=f"no individual {id_}"):
        lineage_info(open_run(tmp_path), int(id_))
    with pytest.raises(SystemExit) as stopped:
        run_command(main, "lineage", [str(tmp_path), "--id", id_])
    assert stopped.value.code == 2
    assert f"lineage: there is no individual {id_}" in capsys.readouterr().err


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path)
    run_command(main, "lineage", [str(tmp_path), "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert [member["id"] for member in printed["members"]] == list(range(25))
