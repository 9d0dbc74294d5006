"""Boxes hold every operation once, no line crosses a box, and the figure says what it shows."""

import json
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import pytest

from analysis.common import open_run, run_command, save_figure
from analysis.layout import place_boxes, route
from analysis.network import draw_network, find_individual, fold_boxes, main, network_info
from evo_topo import Genome, count_flops
from populations.records import LineageError
from tests.runs import branched_genome, chain_genome, make_run, resnet_genome, vector_genome

GENOMES = {
    "chain": chain_genome((8, 16, 16, 32, 32, 64, 64)),
    "signal": chain_genome((4, 8), dims=1),
    "resnet": resnet_genome(),
    "branched": branched_genome(),
    "vector": vector_genome(),
}


@pytest.fixture(params=GENOMES)
def genome(request: pytest.FixtureRequest) -> Genome:
    return GENOMES[request.param]


def test_boxes_hold_every_operation_and_all_flops(genome: Genome) -> None:
    boxes = fold_boxes(genome)
    words = sorted(word for box in boxes for word in box.operation.split(" + "))
    assert words == sorted(node.op.describe() for node in genome.nodes)
    assert sum(box.flops for box in boxes) == count_flops(genome)
    assert sum(box.share for box in boxes) == pytest.approx(1)
    assert all(box.shape == genome.shapes[box.name] for box in boxes)


def test_boxes_fold_what_alone_reads_them() -> None:
    boxes = {box.name: box for box in fold_boxes(GENOMES["resnet"])}
    assert len(boxes) == 35
    assert boxes["conv1"].operation == "Conv 3x3 + BatchNorm + relu"
    assert boxes["add9"].operation == "Add + relu"
    assert boxes["add9"].inputs == ["conv7", "conv1"]


def test_rows_go_down_and_lines_cross_no_box(genome: Genome) -> None:
    inputs = {box.name: box.inputs for box in fold_boxes(genome)}
    places = place_boxes(inputs)
    assert sorted(place.row for place in places.values()) == list(range(len(inputs)))
    assert places[next(iter(inputs))][:2] == (0, 0)
    cells = {(place.row, place.lane) for place in places.values()}
    for name, sources in inputs.items():
        for source in sources:
            start, end = places[source], places[name]
            assert start.row < end.row
            way = route(places, source, name)
            lane = {"late": start.lane, "early": end.lane, "arc": None}[way]
            assert cells.isdisjoint((row, lane) for row in range(start.row + 1, end.row))


def test_branches_get_lanes_and_skips_get_arcs() -> None:
    places = place_boxes({"a": [], "b": ["a"], "c": ["b"], "side": ["a"], "sum": ["c", "side", "a"]})
    assert {name: place.lane for name, place in places.items()} == {
        "a": 0,
        "b": 0,
        "c": 0,
        "side": 1,
        "sum": 0,
    }
    ways = {(s, r): route(places, s, r) for s, r in combinations(places, 2)}
    assert ways["a", "b"] == ways["c", "sum"] == ways["side", "sum"] == "late"
    assert ways["a", "side"] == "early"
    assert ways["a", "sum"] == "arc"


def test_figure_says_what_it_shows(tmp_path: Path, genome: Genome) -> None:
    make_run(tmp_path, generations=0, founder=genome)
    run = open_run(tmp_path)
    info = network_info(run, run.founder)
    save_figure(draw_network(info), tmp_path, "network")
    svg = (tmp_path / "figures" / "network.svg").read_text()
    ElementTree.fromstring(svg)
    for box in info.boxes:
        assert f">{box.name}<" in svg
        assert " x ".join(map(str, box.shape)) in svg
        if box.share >= 0.0005:
            assert f">{100 * box.share:.1f} %<" in svg


def test_no_texts_overlap_and_none_is_clipped(tmp_path: Path, genome: Genome) -> None:
    make_run(tmp_path, generations=0, founder=genome)
    run = open_run(tmp_path)
    figure = draw_network(network_info(run, run.founder))
    figure.draw_without_rendering()
    page = figure.bbox
    extents = [text.get_window_extent() for text in figure.axes[0].texts]
    assert all(page.x0 <= e.x0 and e.x1 <= page.x1 and page.y0 <= e.y0 and e.y1 <= page.y1 for e in extents)
    assert not any(a.overlaps(b) for a, b in combinations(extents, 2))


def test_a_very_deep_network_still_draws(tmp_path: Path) -> None:
    make_run(tmp_path, generations=0, founder=chain_genome((2,) * 100))
    run = open_run(tmp_path)
    assert draw_network(network_info(run, run.founder)).get_size_inches()[1] > 25


def test_find_individual(tmp_path: Path) -> None:
    everyone = make_run(tmp_path, generations=1)
    run = open_run(tmp_path)
    assert find_individual(run, "founder") == find_individual(run, "0") == everyone[0]
    assert find_individual(run, "5") == everyone[5]
    for unknown in ("99", "-1", "best", ""):
        with pytest.raises(LineageError, match="ids are 0 to 6, or the word founder"):
            find_individual(run, unknown)


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    everyone = make_run(tmp_path, generations=1)
    run_command(main, "network", [str(tmp_path), "3"])
    assert (tmp_path / "figures" / "network-3.svg").is_file()
    capsys.readouterr()
    run_command(main, "network", [str(tmp_path), "3", "--json"])
    assert json.loads(capsys.readouterr().out)["flops"] == everyone[3].flops
    with pytest.raises(SystemExit) as stopped:
        run_command(main, "network", [str(tmp_path), "99"])
    assert stopped.value.code == 2
    assert "no individual '99'" in capsys.readouterr().err
