import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evo_topo.cost import count_macs, node_bops
from evo_topo.edits import EditError
from evo_topo.saliency import (
    GateProbe,
    GateStatistics,
    MacLedger,
    cautious_saliency,
    cheapest_units,
    set_saliency,
)
from evo_topo.saliency.joint import removals
from evo_topo.saliency.pruning import as_edit
from evo_topo.units import unit_table
from tests.strategies import EXAMPLES, genomes, marked_genomes, resnet


def random_statistics(genome, seed=0):
    """A gradient and a curvature that nothing in the network explains."""
    columns = GateProbe(None, genome).columns
    width = max((where.stop for where in columns.values()), default=0)
    generator = torch.Generator().manual_seed(seed)
    gradient, root = torch.randn(width, generator=generator), torch.randn(9, width, generator=generator)
    return GateStatistics(0.3 * gradient.double(), 0.3 * root.double(), columns)


def by_group(statistics, columns):
    return dict(as_edit(statistics, columns).units)


@given(st.one_of(genomes(), marked_genomes()), st.randoms(use_true_random=False))
def test_the_ledger_counts_the_macs_of_the_child(genome, rng):
    statistics = random_statistics(genome)
    ledger, gone = MacLedger(genome, statistics.columns), []
    assert ledger.macs == count_macs(genome)
    for _ in range(4):
        spare = ledger.spare.nonzero().flatten().tolist()
        if not spare:
            break
        column, before = rng.choice(spare), ledger.macs
        saved = float(ledger.saved[column])
        ledger.remove(column)
        gone.append(column)
        assert ledger.macs == count_macs(as_edit(statistics, gone).apply(genome))
        assert abs(before - saved - ledger.macs) < 1e-6 + len(node_bops(genome))  # binary layers round up
    for column in reversed(gone):
        ledger.restore(column)
    assert ledger.macs == count_macs(genome)
    assert ledger.left.all()


@given(genomes())
def test_what_is_not_spare_cannot_be_pruned(genome):
    statistics = random_statistics(genome)
    ledger, gone = MacLedger(genome, statistics.columns), []
    for column, _ in removals(statistics, ledger):
        gone.append(column)
    for column in ledger.left.nonzero().flatten().tolist():
        with pytest.raises(EditError, match="empties"):
            as_edit(statistics, [*gone, column]).apply(genome)


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_no_more_than_a_share_of_a_group_goes(share):
    genome = resnet((8, 16), 1, 8)
    statistics = random_statistics(genome)
    ledger = MacLedger(genome, statistics.columns, share)
    gone = by_group(statistics, [column for column, _ in removals(statistics, ledger)])
    widths = {group.name: group.width for group in unit_table(genome).groups.values()}
    assert {name: len(units) for name, units in gone.items()} == {
        name: int(share * width) for name, width in widths.items()
    }


@pytest.mark.parametrize("name", ["small_resnet", "dense", "depthwise", "grouped", "flat_tied"])
def test_each_removal_is_the_cheapest_per_mac_and_priced_with_all_interactions(name):
    genome = EXAMPLES[name]()
    statistics = random_statistics(genome)
    gone, before = [], 0.0
    for column, total in removals(statistics, MacLedger(genome, statistics.columns)):
        macs, rates = count_macs(as_edit(statistics, gone).apply(genome)) if gone else count_macs(genome), {}
        for other in range(len(statistics.gradient)):
            try:
                child = as_edit(statistics, [*gone, other]).apply(genome)
            except EditError:
                continue  # gone already, or the last channel of a layer
            price = set_saliency(statistics, by_group(statistics, [*gone, other])) - before
            rates[other] = price / (macs - count_macs(child))
        assert rates[column] == pytest.approx(min(rates.values()), rel=1e-6)
        gone.append(column)
        before = set_saliency(statistics, by_group(statistics, gone))
        expected = cautious_saliency(statistics, by_group(statistics, gone))
        assert total == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_factors_decide_which_group_comes_first():
    genome = resnet((8, 16), 1, 8)
    statistics = random_statistics(genome)
    statistics = statistics._replace(gradient=statistics.gradient.abs(), root=0 * statistics.root)
    where = list(statistics.columns.values())[2]
    factors = torch.ones_like(statistics.gradient)
    factors[where] = 1e-9
    first = [c for c, _ in removals(statistics, MacLedger(genome, statistics.columns), factors)]
    size = where.stop - where.start - 1  # one unit stays
    assert all(where.start <= column < where.stop for column in first[:size])


@given(st.one_of(genomes(), marked_genomes()), st.floats(0.05, 0.99), st.integers(0, 9))
def test_the_budget_is_kept_and_nothing_more_fits(genome, share, seed):
    statistics, goal = random_statistics(genome, seed), share * count_macs(genome)
    try:
        gone = cheapest_units(statistics, genome, goal)
    except EditError:
        ledger = MacLedger(genome, statistics.columns)
        for _ in removals(statistics, ledger):
            pass  # all that can go
        assert ledger.macs > goal
        return
    assert count_macs(as_edit(statistics, gone).apply(genome)) <= goal
    for kept in gone:
        fewer = [column for column in gone if column != kept]
        macs = count_macs(as_edit(statistics, fewer).apply(genome)) if fewer else count_macs(genome)
        assert macs > goal


def test_two_copies_of_one_signal_cost_more_than_the_sum():
    """Either may go cheaply, in whichever group it is; not both."""
    genome = resnet((4, 4), 1, 8)
    statistics = random_statistics(genome)
    (a, first), (b, second) = list(statistics.columns.items())[:2]
    root = torch.eye(len(statistics.gradient)).double()
    root[:, second.start] = root[:, first.start]
    statistics = statistics._replace(gradient=0 * statistics.gradient, root=root)
    assert set_saliency(statistics, {a: [0], b: [0]}) == pytest.approx(2.0)
    assert set_saliency(statistics, {a: [0], b: [1]}) == pytest.approx(1.0)
