"""The benchmark of genome operations measures what it says."""

import pytest

from analysis.benchmarks.genome_ops import OPERATIONS, genome_table, growth, main, residual_chain
from evo_topo.units import unit_table


@pytest.mark.parametrize("nodes", [50, 400])
def test_chains_have_the_size_asked_for(nodes: int) -> None:
    genome = residual_chain(nodes)
    assert nodes <= len(genome.nodes) <= nodes + 5
    blocks = sum(len(node.inputs) == 2 for node in genome.nodes)
    assert len(unit_table(genome).groups) == blocks + 1  # the stream, and each block's own


def test_growth_is_the_exponent() -> None:
    assert growth([10, 100], [0.5, 5.0]) == pytest.approx(1)
    assert growth([1, 10, 100], [9.0, 0.5, 50.0]) == pytest.approx(2)


def test_every_operation_is_measured_at_every_size() -> None:
    table = genome_table((30, 60), repeats=1, budget=0)
    assert table.keys() == OPERATIONS.keys()
    assert all(len(seconds) == 2 and min(seconds) > 0 for seconds in table.values())


def test_the_table_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("analysis.benchmarks.genome_ops.SIZES", (30, 60))
    monkeypatch.setattr(
        "analysis.benchmarks.genome_ops.genome_table", lambda: genome_table((30, 60), repeats=1, budget=0)
    )
    main([])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(OPERATIONS)
