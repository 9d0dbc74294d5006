"""The front and the hypervolume equal slow references; the figure says what it shows."""

import json
from pathlib import Path
from random import Random
from xml.etree import ElementTree

import msgspec
import numpy as np
import pytest

from analysis.common import Measured, open_run, run_command, save_figure
from analysis.front import Point, draw_front, front_info, hypervolume, main, pareto_front
from populations.individual import Outcome
from populations.lineage import Lineage
from populations.records import LineageError
from tests.runs import make_run, write_front


def random_points(seed: int, count: int) -> list[Measured]:
    rng = Random(seed)
    return [Measured(i, rng.randrange(6) / 5, rng.randrange(1, 12)) for i in range(count)]


@pytest.mark.parametrize("seed", range(20))
def test_front_is_what_nothing_beats(seed: int) -> None:
    points = random_points(seed, seed)
    expected = [
        p
        for p in points
        if not any(
            q.accuracy >= p.accuracy and q.flops <= p.flops and (q.accuracy, q.flops) != (p.accuracy, p.flops)
            for q in points
        )
    ]
    front = pareto_front(points)
    assert sorted(front, key=lambda p: p.id) == expected
    assert [p.flops for p in front] == sorted(p.flops for p in front)


@pytest.mark.parametrize("seed", range(20))
def test_hypervolume_is_the_dominated_area(seed: int) -> None:
    points = [Point(p.id, 0, p.accuracy, p.flops) for p in random_points(seed, seed)]
    cells = [
        max((p.accuracy for p in points if p.flops <= budget), default=0.0) for budget in range(10)
    ]  # best accuracy within each budget from 0 to 9 FLOPs, the founder has 10
    assert hypervolume(points, 10) == pytest.approx(np.mean(cells))


def test_hypervolume_knows_its_ends() -> None:
    assert hypervolume([], 10) == 0
    assert hypervolume([Point(0, 0, 0.9, 10)], 10) == 0
    assert hypervolume([Point(0, 0, 1.0, 99)], 10) == 0
    assert hypervolume([Point(0, 0, 0.8, 5)], 10) == pytest.approx(0.4)


def test_info_without_a_final_front_uses_the_last_population(tmp_path: Path) -> None:
    everyone = make_run(tmp_path)
    run = open_run(tmp_path)
    info = front_info(run)
    assert [p.id for p in info.individuals] == [i.id for i in everyone if i.is_alive]
    assert {p.id for p in info.front} <= set(run.survivors)
    assert info.founder == Point(0, 0, everyone[0].outcome.accuracy, everyone[0].flops)
    assert info.trained_founder is None
    assert info.generations == [0, 1, 2, 3, 4]
    assert info.hypervolumes[0] == 0
    assert all(0 <= value <= 1 for value in info.hypervolumes)


def test_info_reads_the_final_front(tmp_path: Path) -> None:
    everyone = make_run(tmp_path)
    write_front(tmp_path, [everyone[0]], everyone[0])
    info = front_info(open_run(tmp_path))
    assert [(p.id, p.flops) for p in info.front] == [(0, everyone[0].flops)]
    assert info.front[0].test_accuracy == everyone[0].outcome.accuracy - 0.01
    assert info.trained_founder is not None
    assert info.trained_founder.examples == 12345


def test_damaged_front_and_unfinished_run_are_named(tmp_path: Path) -> None:
    make_run(tmp_path)
    (tmp_path / "front.json").write_text('[{"id": 1}]')
    with pytest.raises(LineageError, match=r"front\.json cannot be read"):
        front_info(open_run(tmp_path))
    with pytest.raises(LineageError, match="no finished generation"):
        front_info(open_run(tmp_path)._replace(populations={}))


def test_figure_says_what_it_shows(tmp_path: Path) -> None:
    everyone = make_run(tmp_path)
    survivors = [i for i in everyone if i.id in open_run(tmp_path).survivors]
    write_front(tmp_path, survivors, everyone[0])
    info = front_info(open_run(tmp_path))
    save_figure(draw_front(info), tmp_path, "front")
    svg = (tmp_path / "figures" / "front.svg").read_text()
    ElementTree.fromstring(svg)
    for label in ("FLOPs for one example", "validation accuracy", "hypervolume", "generation of birth"):
        assert label in svg
    assert f"#{info.front[-1].id}<" in svg
    assert "founder trained on 12.3 k examples" in svg
    assert f"{info.hypervolumes[-1]:.3f}" in svg


def test_a_run_without_any_measurement_is_named(tmp_path: Path) -> None:
    founder = msgspec.structs.replace(make_run(tmp_path / "donor", 0)[0], outcome=Outcome("failed"))
    (tmp_path / "config.json").write_text("{}")
    with Lineage(tmp_path) as lineage:
        lineage.add(founder)
        lineage.set_population(0, [0], 1.0)
    with pytest.raises(LineageError, match="no individual whose accuracy"):
        front_info(open_run(tmp_path))


def test_a_single_point_still_draws(tmp_path: Path) -> None:
    make_run(tmp_path, generations=0)
    info = front_info(open_run(tmp_path))
    for drawn in (info, msgspec.structs.replace(info, founder=None, front=[])):
        figure = draw_front(drawn)
        figure.draw_without_rendering()
        assert len(figure.axes) >= 2


def test_json_is_all_there_is_on_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path)
    run_command(main, "front", [str(tmp_path), "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert printed["hypervolumes"] == front_info(open_run(tmp_path)).hypervolumes
    assert not (tmp_path / "figures").exists()
